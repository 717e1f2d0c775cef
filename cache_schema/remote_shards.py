"""Reads samples of a store in a bucket: all arrays at once, so that a sample takes one round of requests.

Where the chunks of uncompressed arrays lie follows from the manifest. Of compressed ones, which are masks,
the first sample of a scene fetches the whole shard when that is small, or else its index and then the chunk.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cache_schema.codec import ChunkLayout, Chunks
from cache_schema.errors import Corrupt
from cache_schema.manifest import ArrayRecord
from cache_schema.shard_index import index_nbytes, unpack_index_bytes
from cache_schema.shard_places import IndexedPlaces, PlannedPlaces
from cache_schema.storage import FETCHES, S3Path, read_ranges
from cache_schema.zarr_metadata import shard_key

_OPEN_SHARDS = 512  # each a few hundred bytes, and what was learnt of it
_SMALL_NBYTES = 1 << 18

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
        # What is known does not change under our hands when another thread learns or forgets.
        known = {name: shard.known for name, shard in shards.items()}
        learning = [name for name in names if known[name] is None]
        chunks = [name for name in names if known[name] is not None and known[name].whole is None]
        got = read_ranges(
            [shards[name].chunk_range(known[name], slots[name]) for name in chunks]
            + [shards[name].learning_range() for name in learning]
        )
        damaged: list[Exception] = []
        for name, data in zip(learning, got[len(chunks) :], strict=True):
            try:
                known[name] = shards[name].learn(data)
            except Corrupt as error:
                damaged.append(error)
        later = [name for name in learning if known[name] is not None and known[name].whole is None]
        got = got[: len(chunks)] + read_ranges(
            [shards[name].chunk_range(known[name], slots[name]) for name in later]
        )
        fetched = dict(zip([*chunks, *later], got, strict=True))
        for name in names:
            if known[name] is None:
                continue
            try:
                found[name] = shards[name].values(known[name], slots[name], fetched.get(name), test=test)
            except Corrupt as error:
                shards[name].forget()
                damaged.append(error)
        if damaged:
            raise _Damaged(str(damaged[0]))

    def _open(self, scene_name: str, array_name: str, number: int) -> "_RemoteShard":
        record = self._record(scene_name, array_name)
        path = self._folder / scene_name / array_name / shard_key(record.array, number)
        return _RemoteShard(path, record, number)


class _Damaged(Exception):
    """Bytes came that are not those that were written; others may come when they are asked for again."""


@dataclass(frozen=True)
class _Known:
    """What one must know of a shard to find a sample in it; `whole` is all of a small one."""

    places: IndexedPlaces | PlannedPlaces
    whole: memoryview | None = None


class _RemoteShard:
    """What is known of one shard before its chunks are fetched.

    Attributes:
        known: None as long as the shard's index is needed and was not read.
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
            raise Corrupt(f"{path} has {nbytes:,} bytes by its record; {largest:,} is the limit")
        self._planned: _Known | None = None
        if not record.array.compressed:
            try:
                places = PlannedPlaces(
                    layout,
                    slots=record.samples_per_shard,
                    n_samples=len(self._checksums),
                    nbytes=nbytes,
                    rows=self._rows,
                )
            except Corrupt as error:
                raise Corrupt(f"{path} {error}") from None
            self._planned = _Known(places)
        self.known = self._planned

    def learning_range(self) -> Range:
        """What to fetch for `learn`: the index, or all of a small shard, whose other samples follow soon."""
        start = 0 if self._nbytes <= _SMALL_NBYTES else self._nbytes - self._index_nbytes
        return self._path, start, self._nbytes, self._nbytes

    def learn(self, data: memoryview) -> _Known:
        """From these bytes. Raises Corrupt when the index is damaged."""
        room = self._nbytes - self._index_nbytes
        try:
            index = unpack_index_bytes(bytes(data[-self._index_nbytes :]), self._n_chunks, room)
        except Corrupt as error:
            raise Corrupt(f"{self._path}: {error}") from None
        whole = data if len(data) == self._nbytes else None
        self.known = _Known(IndexedPlaces(self._layout, index, self._rows), whole)
        return self.known

    def forget(self) -> None:
        """What was learnt: it may have come damaged."""
        self.known = self._planned

    def chunk_range(self, known: _Known, slot: int) -> Range:
        """What to fetch of a sample."""
        start, stop = self._extent(known, slot)
        return self._path, start, stop, self._nbytes

    def values(self, known: _Known, slot: int, data: memoryview | None, *, test: bool) -> np.ndarray:
        """The sample, from its chunks, or from the whole shard when they are None. Raises Corrupt."""
        if data is None:
            start, stop = self._extent(known, slot)
            data = known.whole[start:stop]
        rows = None if self._rows is None else self._rows[slot]
        try:
            return Chunks(self._layout, data, self._checksums[slot], rows).values(test=test)
        except Corrupt as error:
            raise Corrupt(f"{self._path}, slot {slot}: {error}") from None

    def _extent(self, known: _Known, slot: int) -> tuple[int, int]:
        try:
            start, stop = known.places.extent(slot)
            if stop - start > self._layout.per_sample * self._layout.largest_nbytes:
                raise Corrupt(f"a chunk of {stop - start:,} bytes")
        except Corrupt as error:
            raise Corrupt(f"{self._path}, slot {slot}: {error}") from None
        return start, stop
