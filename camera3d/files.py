"""Files that are never half there under their final name, and their digests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from camera3d.errors import CheckpointMismatch


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well; folders are made.

    File and name are on the disk afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)` and give the result its name, see `replaced`."""
    with replaced(path) as temporary:
        write(temporary)


def sha256_of(path: str | Path) -> str:
    """Digest of a checkpoint file. Raises CheckpointMismatch when there is none."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointMismatch(f"no checkpoint file {path}: {error.strerror}") from error
