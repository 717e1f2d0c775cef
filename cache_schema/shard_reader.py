"""Reads samples out of one shard through a memory map.

One copy from the page cache into the caller's own array is all it takes, which is what np.memmap takes too:
where a sample lies is worked out when it is first read, and kept as a view of the map from then on. Nothing
here starts a thread, so forked data workers may use what their parent opened.

A map of a file that was cut short kills the process that touches it. So the file is asked for its length
before each copy, which costs a microsecond, and whoever reads what may change under its hands, as `verify`
does, reads without a map, at half the speed for large arrays.
"""

import mmap
from collections.abc import Sequence

import numpy as np

from cache_schema.codec import ChunkLayout, Chunks
from cache_schema.documents import FileBytes, reading
from cache_schema.errors import Corrupt
from cache_schema.shard_index import index_nbytes, unpack_index
from cache_schema.shard_places import IndexedPlaces
from cache_schema.spec import ArraySpec
from cache_schema.storage import RemoteBytes, S3Path, StorePath, fetched_again


class ShardReader:
    """One shard of one array.

    Args:
        path: the shard file, or the object: of that the chunks are fetched one by one, as `verify` does.
        array: whose shard it is.
        slots: samples that fit into it.
        nbytes: its size as recorded, in bytes.
        checksums: what is recorded of each sample in it.
        rows: of a ragged array, how many each sample in it has.
        mapped: whether a local file is read through a memory map.

    Raises:
        Corrupt: the file is gone, has another size, or its index is damaged.
        Unreadable: the system does not let us open it.
    """

    def __init__(
        self,
        path: StorePath,
        array: ArraySpec,
        *,
        slots: int,
        nbytes: int,
        checksums: Sequence[str],
        rows: Sequence[int] | None = None,
        mapped: bool = True,
    ) -> None:
        self._path = path
        self._layout = layout = ChunkLayout(array)
        self._checksums = checksums
        self._rows = rows
        self._nbytes = nbytes
        self._map: mmap.mmap | None = None
        n_chunks = slots * layout.per_sample
        largest = n_chunks * layout.largest_nbytes + index_nbytes(n_chunks)
        if nbytes > largest:
            raise Corrupt(f"{path} has {nbytes:,} bytes by its record; {largest:,} is the limit")
        try:
            self._bytes = self._opened(mapped)
        except FileNotFoundError:
            raise Corrupt(f"{path} is gone") from None
        try:
            index = fetched_again(path, lambda: unpack_index(self._bytes, n_chunks))
        except Corrupt as error:
            raise Corrupt(f"{path}: {str(error).removeprefix(str(path)).lstrip(': ')}") from None
        self._places = IndexedPlaces(layout, index, rows)
        self._seen: list[Chunks | None] = [None] * slots

    def _opened(self, mapped: bool) -> "memoryview | RemoteBytes | FileBytes":
        if isinstance(self._path, S3Path):
            return RemoteBytes(self._path, self._nbytes)
        local = FileBytes(self._path)
        self._require_nbytes(local.nbytes)
        if not mapped:
            return local
        with reading(self._path):
            self._map = mmap.mmap(local.fileno(), self._nbytes, prot=mmap.PROT_READ)
        return memoryview(self._map)

    def _require_nbytes(self, found: int) -> None:
        if found != self._nbytes:
            raise Corrupt(f"{self._path} has {found} bytes, {self._nbytes} were written")

    def read(self, slot: int, *, test: bool) -> np.ndarray:
        """Values of the sample in a slot, in memory of their own.

        Args:
            test: whether their bytes are tested against the checksum that is recorded.

        Raises Corrupt.
        """
        if self._map is not None and self._map.size() != self._nbytes:
            self._require_nbytes(self._map.size())
        try:
            chunks = self._seen[slot]
            if chunks is not None:
                return chunks.values(test=test)
            return fetched_again(self._path, lambda: self._chunks(slot).values(test=test))
        except Corrupt as error:
            raise Corrupt(f"{self._path}, slot {slot}: {error}") from None

    def _chunks(self, slot: int) -> Chunks:
        rows = None if self._rows is None else self._rows[slot]
        start, end = self._places.extent(slot)
        chunks = Chunks(self._layout, self._bytes[start:end], self._checksums[slot], rows)
        if self._map is not None:
            self._seen[slot] = chunks
        return chunks
