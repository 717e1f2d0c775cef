"""Files that are either not there or there whole, and stay so when the machine loses power.

Whatever is being written stands in a temporary folder that its process keeps locked (`flock`). The kernel
drops the lock with the process, however it dies, so an unlocked temporary folder is nobody's and may go.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from cache_schema.errors import AlreadyPublished
from cache_schema.storage import S3Path, StorePath, put_bytes, uploaded_folder

STAGING_PREFIX = ".writing-"
# The file that completes a scene or teacher head: in an object store nothing is renamed, so it goes up last.
LAST_FILE = "manifest.json"


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


@contextlib.contextmanager
def errors_name(path: str | Path) -> Iterator[None]:
    """Let an OSError of the block say which file it was about: a failed write does not know."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_new(path: Path, data: bytes) -> None:
    """Create a file that was not there, durably. Raises FileExistsError when it was."""
    with errors_name(path), path.open("xb") as file:
        file.write(data)
        file.flush()
        sync_to_disk(file.fileno())


def publish_file(store: StorePath, target: StorePath, data: bytes) -> bool:
    """Create `target` whole and durably, unless it is there; returns whether this call did it.

    Of several processes that do the same at once, one gets True.
    """
    if isinstance(target, S3Path):
        return put_bytes(target, data)
    if target.exists():
        return False
    with _staging_folder(store, target.stem) as folder:
        try:
            write_new(folder / target.name, data)
            _rename_unless_there(folder / target.name, target)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Another machine cleaned up behind a store that was finished meanwhile, see remove_abandoned.
            if not target.exists():
                raise
            return False
    sync_folder(target.parent)
    return True


@contextlib.contextmanager
def published_folder(store: StorePath, target: StorePath) -> Iterator[Path]:
    """A temporary folder inside `store` that becomes `target` when the block ends well.

    An exception in the block removes it. A killed process leaves it behind, under a name that no reader looks
    at, for `remove_abandoned`. The random part of that name is gone after the rename.

    Raises:
        AlreadyPublished: `target` exists, before the block or, made by another process, after it.
    """
    _refuse_published(target)
    if isinstance(target, S3Path):
        with uploaded_folder(target, LAST_FILE) as staging:
            yield staging
            _refuse_published(target)
        return
    with _staging_folder(store, target.name) as staging:
        try:
            yield staging
            for folder, _, _ in os.walk(staging, topdown=False):
                sync_folder(Path(folder))
            staging.rename(target)
        except OSError as error:
            # Not there: see publish_file.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                _refuse_published(target)
            raise
        sync_folder(target.parent)


def remove_abandoned(store: StorePath, *, of_other_machines: bool = False) -> list[str]:
    """Remove temporary folders whose process is dead; returns their names.

    Args:
        of_other_machines: also those that another machine made. Not every shared file system carries locks
            from one machine to another, so the living may look dead: only for a store that is complete, where
            they could publish nothing any more.
    """
    removed: list[str] = []
    if isinstance(store, S3Path):
        return removed  # scenes that were cut off there are no folders; the next upload overwrites them
    for name in sorted(os.listdir(store)):
        if not name.startswith(STAGING_PREFIX) or not (of_other_machines or f"-{machine_tag()}-" in name):
            continue
        with contextlib.suppress(OSError):
            descriptor = _open_locked(store / name)
            try:
                # A living writer must never find half of its folder gone: it loses all of it at once.
                doomed = _staging_name(store, "discarded")
                (store / name).rename(doomed)
                removed.append(name)
                shutil.rmtree(doomed, ignore_errors=True)
            finally:
                os.close(descriptor)
    return removed


def machine_tag() -> str:
    """Eight digits that tell machines apart, for names of temporary folders; never in a finished store."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _staging_name(store: Path, part: str) -> Path:
    return store / f"{STAGING_PREFIX}{part}-{machine_tag()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _staging_folder(store: Path, part: str) -> Iterator[Path]:
    """A fresh temporary folder, locked during the block and gone after it, unless it was renamed."""
    folder, descriptor = _claim(store, part)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _claim(store: Path, part: str) -> tuple[Path, int]:
    """A fresh folder and the descriptor that holds its lock."""
    while True:
        folder = _staging_name(store, part)
        folder.mkdir()
        # Between these two lines it looks abandoned. Who loses it to a cleaner takes another one.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            descriptor = _open_locked(folder, tolerant=True)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _open_locked(folder: Path, *, tolerant: bool = False) -> int:
    """Descriptor of a folder, locked by this process alone; closing it lets go of the lock.

    Args:
        tolerant: do without a lock where the file system has none. Nobody else gets one there either, so the
            folder counts as alive for ever, which is the safe mistake.

    Raises BlockingIOError when another process holds the lock, FileNotFoundError, and OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError) or not tolerant:
            os.close(descriptor)
            raise
    return descriptor


def _rename_unless_there(source: Path, target: Path) -> None:
    """Rename a file. Raises FileExistsError when the target exists."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here. Two processes may then both succeed, one after the other.
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        source.rename(target)


def _refuse_published(target: StorePath) -> None:
    if (target / LAST_FILE if isinstance(target, S3Path) else target).exists():
        raise AlreadyPublished(
            f"{target} is already published; what is published is never rewritten.\n"
            "Skip it (StoreWriter.published_scenes lists the scenes), or remove the folder to write it again."
        ) from None
