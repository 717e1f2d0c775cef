"""Reads samples of a store in a bucket: all arrays at once, so that a sample takes one round of requests.

The first sample of a scene takes one more for the indices of its compressed arrays. Where the chunks of the
others lie follows from the manifest.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from cache_schema.codec import ChunkLayout, Chunks
from cache_schema.errors import Corrupt
from cache_schema.manifest import ArrayRecord
from cache_schema.shard_index import index_nbytes, unpack_index_bytes
from cache_schema.shard_places import IndexedPlaces, PlannedPlaces
from cache_schema.storage import FETCHES, S3Path, read_ranges
from cache_schema.zarr_metadata import shard_key

_OPEN_SHARDS = 1024  # each a few hundred bytes, and its index

Range = tuple[S3Path, int, int, int]


class RemoteShards:
    """The shards of a store in a bucket.

    Args:
        folder: of the scenes.
        record: what the manifest of a scene says of an array, by the names of both.
    """

    def __init__(self, folder: S3Path, record: Callable[[str, str], ArrayRecord]) -> None:
        self._folder, self._record = folder, record
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(self._open)

    def read(self, scene_name: str, row: int, names: Sequence[str], *, test: bool) -> dict[str, np.ndarray]:
        """Arrays of a sample by name. Bytes that do not match their checksum are fetched a few times.

        Args:
            test: whether values are tested against their checksums.

        Raises Corrupt.
        """
        found: dict[str, np.ndarray] = {}
        for attempt in range(FETCHES):
            missing = [name for name in names if name not in found]
            try:
                self._read(scene_name, row, missing, test, found)
                break
            except _Damaged as error:
                if attempt == FETCHES - 1:
                    raise Corrupt(str(error)) from None
        return {name: found[name] for name in names}

    def _read(
        self, scene_name: str, row: int, names: Sequence[str], test: bool, found: dict[str, np.ndarray]
    ) -> None:
        """One attempt, whose whole arrays go into `found`."""
        shards, slots = {}, {}
        for name in names:
            number, slots[name] = divmod(row, self._record(scene_name, name).samples_per_shard)
            shards[name] = self._shard(scene_name, name, number)
        # The indices that are missing on the way with the chunks whose place is known.
        ready = [name for name, shard in shards.items() if shard.places is not None]
        waiting = [name for name in shards if name not in ready]
        first = read_ranges(
            [shards[name].chunk_range(slots[name]) for name in ready]
            + [shards[name].index_range() for name in waiting]
        )
        damaged: list[Exception] = []
        for name, data in zip(waiting, first[len(ready) :], strict=True):
            try:
                shards[name].take_index(data)
            except Corrupt as error:
                damaged.append(error)
        placed = [name for name in waiting if shards[name].places is not None]
        second = read_ranges([shards[name].chunk_range(slots[name]) for name in placed])
        for name, data in zip(ready + placed, [*first[: len(ready)], *second], strict=True):
            try:
                found[name] = shards[name].values(slots[name], data, test=test)
            except Corrupt as error:
                damaged.append(error)
        if damaged:
            raise _Damaged(str(damaged[0]))

    def _open(self, scene_name: str, array_name: str, number: int) -> "_RemoteShard":
        record = self._record(scene_name, array_name)
        path = self._folder / scene_name / array_name / shard_key(record.array, number)
        return _RemoteShard(path, record, number)


class _Damaged(Exception):
    """Bytes came that are not those that were written; others may come when they are asked for again."""


class _RemoteShard:
    """What is known of one shard before its bytes are.

    Attributes:
        places: None as long as the index is needed and was not read.
    """

    def __init__(self, path: S3Path, record: ArrayRecord, number: int) -> None:
        self._path = path
        self._layout = layout = ChunkLayout(record.array)
        self._nbytes = nbytes = record.shard_nbytes[number]
        self._checksums = record.checksums_in_shard(number)
        self._rows = record.rows_in_shard(number)
        self._n_chunks = record.samples_per_shard * layout.per_sample
        self._index_nbytes = index_nbytes(self._n_chunks)
        largest = self._n_chunks * layout.largest_nbytes + self._index_nbytes
        if not self._index_nbytes <= nbytes <= largest:
            raise Corrupt(f"{path} is said to have {nbytes:,} bytes, {largest:,} is the most there can be")
        self.places: IndexedPlaces | PlannedPlaces | None = None
        if not record.array.compressed:
            try:
                self.places = PlannedPlaces(
                    layout,
                    slots=record.samples_per_shard,
                    n_samples=len(self._checksums),
                    nbytes=nbytes,
                    rows=self._rows,
                )
            except Corrupt as error:
                raise Corrupt(f"{path} {error}") from None

    def index_range(self) -> Range:
        return self._path, self._nbytes - self._index_nbytes, self._nbytes, self._nbytes

    def take_index(self, data: memoryview) -> None:
        try:
            index = unpack_index_bytes(bytes(data), self._n_chunks, self._nbytes - self._index_nbytes)
        except Corrupt as error:
            raise Corrupt(f"{self._path}: {error}") from None
        self.places = IndexedPlaces(self._layout, index, self._rows)

    def chunk_range(self, slot: int) -> Range:
        try:
            start, stop = self.places.extent(slot)
            if stop - start > self._layout.per_sample * self._layout.largest_nbytes:
                raise Corrupt(f"a chunk of {stop - start:,} bytes")
        except Corrupt as error:
            raise Corrupt(f"{self._path}, slot {slot}: {error}") from None
        return self._path, start, stop, self._nbytes

    def values(self, slot: int, data: memoryview, *, test: bool) -> np.ndarray:
        rows = None if self._rows is None else self._rows[slot]
        try:
            return Chunks(self._layout, data, self._checksums[slot], rows).values(test=test)
        except Corrupt as error:
            raise Corrupt(f"{self._path}, slot {slot}: {error}") from None
