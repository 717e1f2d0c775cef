"""Where the chunks of each sample of a shard begin and end."""

from collections.abc import Sequence

import numpy as np

from cache_schema.codec import ChunkLayout
from cache_schema.errors import Corrupt
from cache_schema.shard_index import MISSING, index_nbytes


class IndexedPlaces:
    """From the shard's index.

    Args:
        index: (slots × chunks of the largest sample, 2) offset and nbytes of each chunk.
        rows: of a ragged array, how many each sample has.
    """

    def __init__(self, layout: ChunkLayout, index: np.ndarray, rows: Sequence[int] | None) -> None:
        self._layout, self._index, self._rows = layout, index, rows

    def extent(self, slot: int) -> tuple[int, int]:
        """Where the chunks of a sample begin and end; they lie one after the other. Raises Corrupt."""
        layout, per_sample = self._layout, self._layout.per_sample
        if not layout.array.ragged:
            offset, size = self._index[slot].tolist()
            if offset == MISSING:
                raise Corrupt("a chunk is missing")
            return offset, offset + size
        n_chunks = layout.array.n_chunks(self._rows[slot])
        extents = self._index[slot * per_sample : (slot + 1) * per_sample]
        offsets, sizes = extents[:n_chunks].T
        if (offsets == MISSING).any():
            raise Corrupt("a chunk is missing")
        if (extents[n_chunks:] != MISSING).any():
            raise Corrupt("more chunks than the sample has")
        if n_chunks == 0:
            return 0, 0
        if (sizes != layout.largest_nbytes).any():
            raise Corrupt(f"chunks that are not of {layout.largest_nbytes} bytes")
        if (offsets[1:] != offsets[:-1] + sizes[:-1]).any():
            raise Corrupt("chunks that do not follow one another")
        return int(offsets[0]), int(offsets[-1] + sizes[-1])


class PlannedPlaces:
    """From the manifest alone: chunks that are not compressed lie one after the other, and have one size.

    Args:
        slots: samples for which the shard's index has room.
        n_samples: in the shard.
        nbytes: of the shard, as recorded.
        rows: of a ragged array, how many each sample has.

    Raises Corrupt when a shard of these samples has another size.
    """

    def __init__(
        self, layout: ChunkLayout, *, slots: int, n_samples: int, nbytes: int, rows: Sequence[int] | None
    ) -> None:
        counts = [1] * n_samples if rows is None else [layout.array.n_chunks(count) for count in rows]
        ends = np.cumsum(counts) * layout.largest_nbytes
        expected = int(ends[-1]) + index_nbytes(slots * layout.per_sample)
        if nbytes != expected:
            raise Corrupt(f"has {nbytes:,} bytes by its record, and its samples take {expected:,}")
        self._bounds = [0, *ends.tolist()]

    def extent(self, slot: int) -> tuple[int, int]:
        """Where the chunks of a sample begin and end."""
        return self._bounds[slot], self._bounds[slot + 1]
