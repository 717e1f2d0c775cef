"""A full disk and a forbidden folder are not bugs: say which file, how much is needed, how much there is."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping

from cache_schema.errors import NotWritable
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import published_scenes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def explained(store: StorePath, missing_nbytes: Callable[[], int]) -> Iterator[None]:
    """Turn an OSError about space or permission into NotWritable; others pass.

    Args:
        missing_nbytes: what the store still lacks, at most; asked when something has gone wrong.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL + _FORBIDDEN:
            raise
        remedy = "Make room" if error.errno in _FULL else "Make it writable"
        raise NotWritable(
            f"{os.strerror(error.errno)}: {error.filename or store}\n"
            f"  needed  {megabytes(missing_nbytes())} at most, for the scenes that are missing in {store}\n"
            f"  free    {megabytes(free_nbytes(store))} on that disk\n"
            f"{remedy} and run the same command again: scenes that are published are kept."
        ) from error


def missing_nbytes(store: StorePath, spec: StoreSpec, planned: Mapping[str, int]) -> int:
    """Bytes of the planned samples (by scene name) that are not published, before compression."""
    published = set(published_scenes(store, StorePlan.of(planned)))
    return sum(n for name, n in planned.items() if name not in published) * spec.bytes_per_sample


def free_nbytes(store: StorePath) -> int:
    if isinstance(store, S3Path):
        return shutil.disk_usage(tempfile.gettempdir()).free  # where its scenes are made
    there = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB ({n_bytes:,} bytes)"
