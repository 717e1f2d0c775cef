"""One sample of one array, from numbers to the bytes of its chunk and back.

A chunk is the sample's values, little-endian, in C order. A compressed array (which are: docs/decisions/0007)
wraps them in a Blosc frame and appends the CRC-32C of that frame, so that no reader hands damaged bytes to
the decompressor. The Zarr metadata says the same to other readers: codecs `bytes`, then `blosc` and `crc32c`.
A sample of a ragged array is as many chunks of rows as it needs, one after the other, the last one filled up
with the fill value.
"""

import struct

import google_crc32c
import numpy as np
from numcodecs import blosc

from cache_schema.errors import Corrupt
from cache_schema.spec import ArraySpec

# LZ4 after a bit shuffle saves what Zstandard does on features, to within a few percent, at twice the speed.
BLOSC_CNAME = "lz4"
BLOSC_LEVEL = 5
_SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
_CRC = struct.Struct("<I")
# Flags and sizes that start a Blosc 1 frame: four bytes, then nbytes, blocksize and cbytes.
_BLOSC_HEADER = struct.Struct("<4xIII")
OVERHEAD_NBYTES = 16 + 4  # header and checksum, by which a chunk that cannot be compressed grows


def disk_dtype(array: ArraySpec) -> np.dtype:
    """The array's dtype as it lies on disk."""
    return np.dtype(array.dtype).newbyteorder("<")


def raw_bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of a C-ordered array as a flat uint8 view."""
    return values.reshape(-1).view(np.uint8)


def crc32c(data: bytes | np.ndarray) -> str:
    """CRC-32C (Castagnoli) as eight hexadecimal digits, the way all records of the store spell it."""
    return f"{google_crc32c.value(data):08x}"


def blosc_shuffle(array: ArraySpec) -> str:
    """What Blosc does before LZ4: nothing to masks, whose long runs unpack four times faster as they are."""
    return "noshuffle" if array.dtype == "bool" else "bitshuffle"


def encode(array: ArraySpec, values: np.ndarray) -> bytes | np.ndarray:
    """Bytes of one sample's chunks. `values` is C-ordered and has the array's shape and disk dtype."""
    if array.ragged:
        return raw_bytes(np.concatenate([values, _padding(array, len(values))]))
    if not array.compressed:
        return raw_bytes(values)
    # With threads Blosc orders its blocks by who finishes first, and equal input gives unequal bytes.
    blosc.use_threads = False
    shuffle = _SHUFFLES[blosc_shuffle(array)]
    frame = blosc.compress(values, BLOSC_CNAME.encode(), BLOSC_LEVEL, shuffle, 0)
    return frame + _CRC.pack(google_crc32c.value(frame))


def decode(array: ArraySpec, chunk: memoryview, rows: int | None = None) -> np.ndarray:
    """Values of one sample in memory of their own, from the bytes of its chunks.

    Args:
        rows: of a ragged array, how many the sample has.

    Raises Corrupt when the bytes cannot be what `encode` made for this array.
    """
    if not array.compressed:
        return plain_values(array, chunk, rows).copy()
    # Small, so a copy is cheap, and the decompressor never sees a file that changes under its hands.
    frame, stored = bytes(chunk[: -_CRC.size]), bytes(chunk[-_CRC.size :])
    if len(frame) < _BLOSC_HEADER.size or _CRC.pack(google_crc32c.value(frame)) != stored:
        raise Corrupt("compressed chunk does not match its CRC-32C")
    n_bytes, _, n_compressed = _BLOSC_HEADER.unpack_from(frame)
    if (n_bytes, n_compressed) != (array.bytes_per_sample, len(frame)):
        raise Corrupt(f"Blosc frame of {n_bytes} bytes where {array.bytes_per_sample} belong")
    values = np.empty(array.shape, disk_dtype(array))
    try:
        blosc.decompress(frame, values.reshape(-1))
    except (RuntimeError, ValueError) as error:
        raise Corrupt(f"compressed chunk cannot be unpacked: {error}") from None
    return values


def plain_values(array: ArraySpec, chunk: memoryview, rows: int | None = None) -> np.ndarray:
    """A view of one sample of an array that is not compressed; arguments and errors as of `decode`."""
    dtype = disk_dtype(array)
    if array.ragged:
        padded = np.frombuffer(chunk, dtype).reshape(-1, *array.shape[1:])
        if raw_bytes(padded[rows:]).tobytes() != raw_bytes(_padding(array, rows)).tobytes():
            raise Corrupt("what fills its last chunk up is not the fill value")
        return padded[:rows]
    if chunk.nbytes != array.bytes_per_sample:
        raise Corrupt(f"chunk of {chunk.nbytes} bytes where {array.bytes_per_sample} belong")
    return np.frombuffer(chunk, dtype).reshape(array.shape)


def _padding(array: ArraySpec, rows: int) -> np.ndarray:
    """The rows that fill up the last chunk of a ragged sample."""
    n_missing = array.n_chunks(rows) * array.rows_per_chunk - rows
    return np.full((n_missing, *array.shape[1:]), array.fill_value, disk_dtype(array))
