"""Files that are either not there or there whole, and stay so when the machine loses power."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from cache_schema.errors import AlreadyPublished

STAGING_PREFIX = ".writing-"


def sync_to_disk(descriptor: int) -> None:
    """Wait until the disk has what was written to a file or folder."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a synced file in an unsynced folder can still vanish."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_to_disk(descriptor)
    finally:
        os.close(descriptor)


def write_new(path: Path, data: bytes) -> None:
    """Create a file that was not there, durably. Raises FileExistsError when it was."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        sync_to_disk(file.fileno())


@contextlib.contextmanager
def published_folder(store: Path, target: Path) -> Iterator[Path]:
    """A temporary folder inside `store` that becomes `target` when the block ends well.

    An exception in the block removes it. A killed process leaves it behind, under a name that no reader looks
    at. The random part of that name keeps two processes apart and is gone after the rename.

    Raises:
        AlreadyPublished: `target` exists, before the block or, made by another process, after it.
    """
    _refuse_published(target)
    staging = store / f"{STAGING_PREFIX}{target.name}-{secrets.token_hex(4)}"
    staging.mkdir()
    try:
        yield staging
        for folder, _, _ in os.walk(staging, topdown=False):
            sync_folder(Path(folder))
        try:
            staging.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                _refuse_published(target)
            raise
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _refuse_published(target: Path) -> None:
    if target.exists():
        raise AlreadyPublished(
            f"{target} is already published; what is published is never rewritten.\n"
            "Skip it (StoreWriter.published_scenes lists the scenes), or remove the folder to write it again."
        )
