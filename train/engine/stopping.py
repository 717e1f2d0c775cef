"""What ends a training without being a bug: a full disk, a killed worker, a damaged sample. Said in words."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

from cache_schema.errors import CacheError
from camera3d.data.worker_errors import worker_deaths_told
from camera3d.errors import Camera3DError, DataWorkerDied, ImagesBroken, SharedMemoryShort
from train.engine.checkpoints import checkpoints

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# torch.save is told of a failed write by its zip writer, in a RuntimeError without a number.
_TORCH_WRITER = ("PytorchStreamWriter failed", "inline_container")


class WorkDirNotWritable(Camera3DError):
    """The disk is full, or does not let us write; the checkpoints that are there stay whole."""


@contextmanager
def stops_told(work_dir: str | Path) -> Iterator[None]:
    """Around a training: says where `--resume` goes on, and turns what the system said into an error of ours.

    Raises:
        WorkDirNotWritable: a file could not be written.
        DataWorkerDied: a process that reads data was killed.
    """
    try:
        with worker_deaths_told(), _full_disks_told(Path(work_dir)):
            yield
    except (CacheError, ImagesBroken, DataWorkerDied, SharedMemoryShort, WorkDirNotWritable):
        there = checkpoints(work_dir)
        where = f"the same command with --resume continues from {there[0]}" if there else "no checkpoint yet"
        print_log(f"the training stopped; {where}", "current", level=logging.WARNING)
        raise


@contextmanager
def _full_disks_told(work_dir: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = getattr(error, "errno", None)
        by_torch = any(words in str(error) for words in _TORCH_WRITER)
        if number not in _FULL + _FORBIDDEN and not by_torch:
            raise
        reason = "a file could not be written whole" if by_torch else os.strerror(number)
        remedy = "Make it writable" if number in _FORBIDDEN else "Make room"
        free = f"{shutil.disk_usage(work_dir).free / 1e6:,.1f} MB" if work_dir.exists() else "unknown"
        raise WorkDirNotWritable(
            f"{reason}: {getattr(error, 'filename', None) or work_dir} ({free} free on the disk of --work-dir"
            f" {work_dir}). {remedy}; every checkpoint there is whole."
        ) from error
