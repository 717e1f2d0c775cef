"""One sample of one array, from numbers to the bytes of its chunks and back.

A chunk is the sample's values, little-endian, in C order, in a Blosc frame when the array is compressed
(which are: docs/decisions/0007), and the CRC-32C of these bytes after them. The Zarr metadata says the same
to other readers: codecs `bytes`, `blosc` if there is one, `crc32c`. A sample of a ragged array is as many
chunks of rows as it needs, one after the other, the last one filled up with the fill value.

A manifest records one checksum a sample: the one at the end of its chunk, or, of a ragged array, the CRC-32C
of those at the ends of its chunks, one after the other. So a reader goes through the values once.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache

import google_crc32c
import numpy as np
from numcodecs import blosc

from cache_schema.array_spec import ArraySpec
from cache_schema.errors import Corrupt

# LZ4 after a bit shuffle saves what Zstandard does on features, to within a few percent, at twice the speed.
BLOSC_CNAME = "lz4"
BLOSC_LEVEL = 5
CRC_NBYTES = 4
_SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "bitshuffle": blosc.BITSHUFFLE}
_CRC = struct.Struct("<I")
_MAX_ITEM_NBYTES = 2**31 - 1  # of numpy
# Bytes that are copied and tested together: so few that the processor's cache holds them, and so many that
# the copy goes around the cache on its way out, which is a third faster.
_BLOCK_NBYTES = 2**20
# Flags and sizes that start a Blosc 1 frame: four bytes, then nbytes, blocksize and cbytes.
_BLOSC_HEADER = struct.Struct("<4xIII")


def disk_dtype(array: ArraySpec) -> np.dtype:
    """The array's dtype as it lies on disk."""
    return np.dtype(array.dtype).newbyteorder("<")


def raw_bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of a C-ordered array as a flat uint8 view."""
    return values.reshape(-1).view(np.uint8)


def crc32c(data: bytes | np.ndarray) -> str:
    """CRC-32C (Castagnoli) as eight hexadecimal digits, the way all records of the store spell it."""
    return f"{google_crc32c.value(data):08x}"


def packed_crc32c(data: bytes | np.ndarray) -> bytes:
    """CRC-32C as it ends a chunk: four bytes, little-endian."""
    return _CRC.pack(google_crc32c.value(data))


def stored_crc32c(end: bytes | np.ndarray) -> str:
    """The digits of a CRC-32C that lies in the last four of these bytes."""
    return f"{_CRC.unpack(end[-CRC_NBYTES:])[0]:08x}"


def blosc_shuffle(array: ArraySpec) -> str:
    """What Blosc does before LZ4: nothing to masks, whose long runs unpack four times faster as they are."""
    return "noshuffle" if array.dtype == "bool" else "bitshuffle"


@dataclass(frozen=True)
class Encoded:
    """The chunks of one sample.

    Attributes:
        pieces: their bytes, to be written one after the other.
        crc32c: what the manifest records of them.
    """

    pieces: tuple[bytes | np.ndarray, ...]
    crc32c: str


def encode(array: ArraySpec, values: np.ndarray) -> Encoded:
    """One sample's chunks. `values` is C-ordered and has the array's disk dtype and shape, or fewer rows."""
    if array.ragged:
        return _encode_ragged(array, values)
    data = raw_bytes(values)
    if array.compressed:
        # With threads Blosc orders its blocks by who finishes first, and equal input gives unequal bytes.
        blosc.use_threads = False
        shuffle = _SHUFFLES[blosc_shuffle(array)]
        data = blosc.compress(values, BLOSC_CNAME.encode(), BLOSC_LEVEL, shuffle, 0)
    end = packed_crc32c(data)
    return Encoded((data, end), stored_crc32c(end))


def _encode_ragged(array: ArraySpec, values: np.ndarray) -> Encoded:
    n_chunks = array.n_chunks(len(values))
    n_missing = n_chunks * array.rows_per_chunk - len(values)
    padding = np.full((n_missing, *array.shape[1:]), array.fill_value, values.dtype)
    data = raw_bytes(np.concatenate([values, padding])).reshape(n_chunks, array.chunk_nbytes)
    ends = np.array([google_crc32c.value(chunk) for chunk in data], "<u4").view(np.uint8)
    chunks = np.concatenate([data, ends.reshape(n_chunks, CRC_NBYTES)], axis=1)
    return Encoded((raw_bytes(chunks),), crc32c(ends))


class ChunkRuns:
    """CRC-32C of chunks in a run, each with its own checksum behind it.

    The bits of a chunk and of the checksum behind it cancel each other out: the CRC-32C of an intact run
    depends on nothing but the number and size of its chunks. So one call tests all of them, in three quarters
    of the time that a call for each takes.

    Args:
        nbytes: of one chunk, its checksum included.
    """

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._known = [0]

    def crc32c(self, n_chunks: int) -> str:
        """That of so many intact chunks."""
        known = self._known
        if n_chunks >= len(known):
            contents = bytes(self._nbytes - CRC_NBYTES)
            chunk = contents + packed_crc32c(contents)
            known = list(known)  # a list of its own: other threads may be here too
            while len(known) <= n_chunks:
                known.append(google_crc32c.extend(known[-1], chunk))
            self._known = known
        return f"{known[n_chunks]:08x}"


_chunk_runs = lru_cache(maxsize=64)(ChunkRuns)


class ChunkLayout:
    """What the chunks of one array have in common, worked out once.

    Attributes:
        array: whose they are.
        dtype: of the values on disk.
        largest_nbytes: the most that one takes on disk; just so many when it is not compressed.
        per_sample: chunks of the largest sample.
        runs: of a ragged array.
    """

    def __init__(self, array: ArraySpec) -> None:
        frame_nbytes = _BLOSC_HEADER.size if array.compressed else 0
        self.array = array
        self.dtype = disk_dtype(array)
        self.largest_nbytes = array.chunk_nbytes + frame_nbytes + CRC_NBYTES
        self.per_sample = array.chunks_per_sample
        self.runs = _chunk_runs(self.largest_nbytes) if array.ragged else None


class Chunks:
    """The chunks of one sample as they lie in a shard: a view of their bytes.

    Args:
        data: the bytes, checksums included.
        checksum: what the manifest records of them.
        rows: of a ragged array, how many the sample has.

    Raises Corrupt when there are more or fewer bytes than that takes, or they end in other checksums.
    """

    __slots__ = ("_bytes", "_crc32c", "_layout", "_shape", "_view")

    def __init__(self, layout: ChunkLayout, data: memoryview, checksum: str, rows: int | None = None) -> None:
        array = layout.array
        n_chunks = 1 if rows is None else array.n_chunks(rows)
        most = n_chunks * layout.largest_nbytes
        least = _BLOSC_HEADER.size + CRC_NBYTES if array.compressed else most
        if not least <= data.nbytes <= most:
            raise Corrupt(f"its chunks have {data.nbytes} bytes, expected {least} to {most}")
        self._layout = layout
        self._shape = array.shape if rows is None else (rows, *array.shape[1:])
        self._bytes = np.frombuffer(data, np.uint8)
        if array.ragged:
            table = self._bytes.reshape(n_chunks, layout.largest_nbytes)
            found = crc32c(table[:, -CRC_NBYTES:].tobytes())
            self._crc32c = layout.runs.crc32c(n_chunks)
            self._view = table[:, :-CRC_NBYTES]
            if array.chunk_nbytes <= _MAX_ITEM_NBYTES:
                # Chunks as items of an array are copied a little faster than as rows of bytes.
                item = np.dtype((np.void, array.chunk_nbytes))
                self._view = np.ndarray((n_chunks,), item, self._bytes, strides=(layout.largest_nbytes,))
        else:
            found = self._crc32c = stored_crc32c(self._bytes)
            self._bytes = self._bytes[:-CRC_NBYTES]
            self._view = None if array.compressed else self._bytes.view(layout.dtype).reshape(array.shape)
        if found != checksum:
            raise Corrupt(f"the checksums of its chunks make {found}, and the record says {checksum}")

    def values(self, *, test: bool) -> np.ndarray:
        """The sample, in memory of its own.

        Args:
            test: whether the bytes are tested against the checksums. Those of a compressed chunk always are,
                before it is unpacked.

        Raises Corrupt when the test fails, or a frame is not one of this array.
        """
        if self._view is None:
            return self._unpacked()
        values = self._copied_and_tested() if test else self._view.copy()
        if self._layout.runs is None:
            return values
        # What fills up the last chunk is left in the memory behind the last row.
        return np.ndarray(self._shape, self._layout.dtype, values)

    def _copied_and_tested(self) -> np.ndarray:
        # A block is tested while the copy has left it in the processor's cache.
        values = np.empty(self._view.shape, self._view.dtype)
        if self._layout.runs is None:
            copied, source = values.reshape(-1).view(np.uint8), self._bytes
            tested = source
        else:
            copied, source, tested = values, self._view, self._bytes.reshape(-1, self._layout.largest_nbytes)
        step = max(1, _BLOCK_NBYTES // max(1, tested[:1].nbytes))
        found = 0
        for start in range(0, len(source), step):
            block = slice(start, start + step)
            copied[block] = source[block]
            found = google_crc32c.extend(found, tested[block])
        self._require(f"{found:08x}")
        return values

    def _unpacked(self) -> np.ndarray:
        # Small, so a copy is cheap, and the decompressor never sees a file that changes under its hands.
        frame = self._bytes.tobytes()
        self._require(crc32c(frame))
        n_bytes, _, n_compressed = _BLOSC_HEADER.unpack_from(frame)
        values = np.empty(self._shape, self._layout.dtype)
        if (n_bytes, n_compressed) != (values.nbytes, len(frame)):
            raise Corrupt(f"its Blosc frame holds {n_bytes} bytes, expected {values.nbytes}")
        try:
            blosc.decompress(frame, values.reshape(-1))
        except (RuntimeError, ValueError) as error:
            raise Corrupt(f"compressed chunk cannot be unpacked: {error}") from None
        return values

    def _require(self, found: str) -> None:
        if found != self._crc32c:
            raise Corrupt("its bytes do not match their CRC-32C")
