"""The index that ends a Zarr v3 shard: (offset, nbytes) of every chunk, then the CRC-32C of those numbers.

Both are unsigned 64-bit little-endian, two of 2**64 - 1 mean that the chunk is not there. The rows lie in the
C order of the chunk grid, which is the order of the samples: a chunk here is one whole sample.
"""

import struct

import google_crc32c
import numpy as np

from cache_schema.documents import FileBytes
from cache_schema.errors import Corrupt
from cache_schema.storage import RemoteBytes

MISSING = 2**64 - 1
_CRC = struct.Struct("<I")


def index_nbytes(slots: int) -> int:
    """Bytes of the index of a shard with room for `slots` chunks."""
    return 16 * slots + _CRC.size


def pack_index(extents: list[tuple[int, int]], slots: int) -> bytes:
    """Index of a shard whose first slots say `extents`, and whose other slots are empty."""
    table = np.full((slots, 2), MISSING, "<u8")
    if extents:
        table[: len(extents)] = np.array(extents, "<u8")
    body = table.tobytes()
    return body + _CRC.pack(google_crc32c.value(body))


def unpack_index(shard: memoryview | RemoteBytes | FileBytes, slots: int) -> np.ndarray:
    """(slots, 2) uint64 of offset and nbytes, from a whole shard.

    Raises Corrupt when the shard is too short, the checksum is wrong, or a chunk reaches outside its place.
    """
    room = shard.nbytes - index_nbytes(slots)
    if room < 0:
        raise Corrupt(f"shard of {shard.nbytes} bytes is shorter than its index")
    return unpack_index_bytes(bytes(shard[room:]), slots, room)


def unpack_index_bytes(data: bytes, slots: int, room: int) -> np.ndarray:
    """The same from the index alone; `room` is how many bytes lie before it. Raises Corrupt."""
    body, stored = data[: -_CRC.size], data[-_CRC.size :]
    if _CRC.pack(google_crc32c.value(body)) != stored:
        raise Corrupt("shard index does not match its CRC-32C")
    table = np.frombuffer(body, "<u8").reshape(slots, 2)
    present = table[table[:, 0] != MISSING]
    # Compared this way round, no sum of a wild offset can wrap around.
    if (present[:, 1] > room).any() or (present[:, 0] > room - present[:, 1]).any():
        raise Corrupt("shard index points outside its shard")
    return table
