"""Whether shared memory holds the batches that data workers keep ready."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import get_worker_info

from camera3d.data.worker_errors import Failure, or_failure
from camera3d.errors import SharedMemoryShort

# Batches that a DataLoader asks each worker for ahead.
PREFETCHED = 2
SHARED_MEMORY = Path("/dev/shm")


class RoomForBatches:
    """A collate function that looks, before a worker's first batch leaves it, whether all of them fit.

    A worker that finds the memory full is killed, which tells nobody the reason. Where there is no such
    folder, nothing is looked at.

    Args:
        collate: makes a batch of items.
    """

    def __init__(self, collate: Callable[[object], object]) -> None:
        self._collate, self._looked = collate, False

    def __call__(self, items: object) -> object:
        """The batch; in a worker, a Failure with SharedMemoryShort where there is no room."""
        batch, worker = self._collate(items), get_worker_info()
        if worker is None or self._looked or isinstance(batch, Failure):
            return batch
        self._looked = True
        return or_failure(lambda: fitting(batch, worker.num_workers))


def fitting(batch: object, workers: int) -> object:
    """The batch itself. Raises SharedMemoryShort."""
    if not SHARED_MEMORY.is_dir():
        return batch
    nbytes, free = nbytes_of(batch), shutil.disk_usage(SHARED_MEMORY).free
    # The other workers may have left their first batch there already.
    if nbytes * (workers * (PREFETCHED - 1) + 1) > free:
        raise SharedMemoryShort(
            f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, and data workers hand their batches over in it:"
            f" {workers} workers × {PREFETCHED} batches × {nbytes / 1e6:,.1f} MB ="
            f" {workers * PREFETCHED * nbytes / 1e6:,.0f} MB. Give fewer --workers or a smaller --batch-size;"
            " a container gets more of it with docker run --shm-size=16g"
        )
    return batch


def nbytes_of(value: object) -> int:
    """The bytes of all tensors in nested mappings and sequences."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(nbytes_of, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return sum(map(nbytes_of, value))
    return 0
