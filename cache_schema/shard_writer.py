"""Writes Zarr v3 shards chunk by chunk, as the samples come.

zarr-python holds a whole shard in memory before it writes it, at 0.15 to 0.4 GB/s; here a sample's bytes go
straight to the file and the index follows at the end, so that memory stays flat.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from cache_schema.files import errors_name, sync_to_disk
from cache_schema.shard_index import MISSING, pack_index


class ShardWriter:
    """One shard file, open for appending chunks in slot order.

    Args:
        path: the file, which must not exist.
        slots: chunks that fit; fewer may come, and the rest is then marked as missing.
    """

    def __init__(self, path: Path, slots: int) -> None:
        self._slots = slots
        self._extents: list[tuple[int, int]] = []
        self._end = 0
        self._file = path.open("xb", buffering=0)

    def append(self, pieces: Sequence[bytes | np.ndarray], *, n_chunks: int = 1, n_missing: int = 0) -> None:
        """Write the next chunks and mark the slots after them as missing.

        Args:
            pieces: bytes of the chunks, one after the other; all chunks have one size.
            n_chunks, n_missing: how many slots are filled, and how many after them are not.

        Raises ValueError when the shard has no room for them, OSError as the disk does.
        """
        if len(self._extents) + n_chunks + n_missing > self._slots:
            raise ValueError(f"shard has {self._slots} slots, {len(self._extents)} of them taken")
        n_bytes = sum(memoryview(piece).nbytes for piece in pieces) // max(1, n_chunks)
        for piece in pieces:
            self._write(piece)
        self._extents += [(self._end + number * n_bytes, n_bytes) for number in range(n_chunks)]
        self._extents += [(MISSING, MISSING)] * n_missing
        self._end += n_chunks * n_bytes

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return len(self._extents) == self._slots

    def finish(self) -> int:
        """Write the index, wait until the disk has everything, close. Returns the file's size in bytes."""
        index = pack_index(self._extents, self._slots)
        self._write(index)
        sync_to_disk(self._file.fileno())
        self._file.close()
        return self._end + len(index)

    def close(self) -> None:
        """Close the file as it is: without an index unless `finish` came first."""
        self._file.close()

    def _write(self, data: bytes | np.ndarray) -> None:
        # An unbuffered write may take less than it is given: Linux stops at 2 GiB.
        rest = memoryview(data).cast("B")
        with errors_name(self._file.name):
            while rest.nbytes:
                rest = rest[self._file.write(rest) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
