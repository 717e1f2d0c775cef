"""Files that are either not there or there whole, and stay so when the machine loses power.

Whatever is being written stands in a temporary folder that its process keeps locked (`flock`). The kernel
drops the lock with the process, however it dies, so an unlocked temporary folder is nobody's and may go.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import os
import re
import secrets
import socket
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from cache_schema.errors import AlreadyPublished, NotOurs
from cache_schema.folders import inside, open_below, put_aside, remove_tree
from cache_schema.storage import S3Path, StorePath, put_bytes, uploaded_folder

STAGING_PREFIX = ".writing-"
# What `_staging_name` makes: a name of ours, the machine's digits, and random ones.
_STAGING_NAME = re.compile(
    rf"{re.escape(STAGING_PREFIX)}[A-Za-z0-9][A-Za-z0-9_-]*-([0-9a-f]{{8}})-[0-9a-f]{{8}}"
)
# The file that completes a scene or teacher head: in an object store nothing is renamed, so it goes up last.
LAST_FILE = "manifest.json"


def sync_to_disk(descriptor: int) -> None:
    """Wait until the disk has what was written to a file or folder."""
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a synced file in an unsynced folder can still vanish.

    Only of folders that this process has made: this follows links.
    """
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


def write_new(path: Path, data: bytes | memoryview) -> None:
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
    if os.path.lexists(target):
        return False
    with _staging_folder(store, target.stem) as folder, inside(store, *_parents(store, target)) as parent:
        try:
            write_new(folder / target.name, data)
            _rename_unless_there(folder / target.name, parent, target.name)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Another machine cleaned up behind a store that was finished meanwhile, see remove_abandoned.
            if not os.path.lexists(target):
                raise
            return False
        sync_to_disk(parent)
    return True


def replace_file(store: StorePath, target: StorePath, data: bytes | memoryview) -> None:
    """Put a file into the root of a store, whole and durably, over any that was there."""
    if isinstance(target, S3Path):
        target.upload(io.BytesIO(data))
        return
    with _staging_folder(store, target.stem) as folder, inside(store) as root:
        write_new(folder / target.name, data)
        os.rename(folder / target.name, target.name, dst_dir_fd=root)
        sync_to_disk(root)


@contextlib.contextmanager
def published_folder(store: StorePath, target: StorePath) -> Iterator[Path]:
    """A temporary folder inside `store` that becomes `target` when the block ends well.

    An exception in the block removes it. A killed process leaves it behind, under a name that no reader looks
    at, for `remove_abandoned`. The random part of that name is gone after the rename. What stands at `target`
    and was not published, such as a file or a folder without manifest, is put aside first, with a warning.

    Raises:
        AlreadyPublished: `target` is published, before the block or, by another process, after it.
        NotOurs: the way to `target` leads through a link, or to another file system.
    """
    _refuse_published(target)
    if isinstance(target, S3Path):
        with uploaded_folder(target, LAST_FILE) as staging:
            yield staging
            _refuse_published(target)
        return
    _make_way(store, target)
    with _staging_folder(store, target.name) as staging:
        try:
            yield staging
            for folder, _, _ in os.walk(staging, topdown=False):
                sync_folder(Path(folder))
            with inside(store) as root, inside(store, *_parents(store, target)) as parent:
                os.rename(staging.name, target.name, src_dir_fd=root, dst_dir_fd=parent)
                sync_to_disk(parent)
        except OSError as error:
            # Not there: see publish_file.
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                _refuse_published(target)
            raise


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
    with inside(store) as root:
        for name in sorted(os.listdir(root)):
            made_by = _STAGING_NAME.fullmatch(name)
            if made_by is None or not (of_other_machines or made_by[1] == machine_tag()):
                continue
            with contextlib.suppress(OSError, NotOurs):
                descriptor = _open_locked(root, store / name)
                try:
                    # A living writer must never find half of its folder gone: it loses all of it at once.
                    doomed = _staging_name(store, "discarded")
                    os.rename(name, doomed.name, src_dir_fd=root, dst_dir_fd=root)
                    removed.append(name)
                    remove_tree(root, doomed.name, doomed)
                finally:
                    os.close(descriptor)
    return removed


def other_machines_at_work(store: Path, within_s: float) -> list[str]:
    """Temporary folders of other machines in which a file was written within these seconds; names, sorted."""
    found, since = [], time.time() - within_s
    for name in sorted(os.listdir(store)):
        made_by = _STAGING_NAME.fullmatch(name)
        if made_by is None or made_by[1] == machine_tag():
            continue
        for folder, _, files in os.walk(store / name):
            paths = (folder, *(os.path.join(folder, file) for file in files))
            with contextlib.suppress(FileNotFoundError):  # published meanwhile
                if max(os.lstat(path).st_mtime for path in paths) > since:
                    found.append(name)
                    break
    return found


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
        with contextlib.suppress(OSError, NotOurs), inside(store) as root:
            remove_tree(root, folder.name, folder)
        os.close(descriptor)


def _claim(store: Path, part: str) -> tuple[Path, int]:
    """A fresh folder and the descriptor that holds its lock."""
    while True:
        folder = _staging_name(store, part)
        folder.mkdir()
        # Between these two lines it looks abandoned. Who loses it to a cleaner takes another one.
        with contextlib.suppress(BlockingIOError, FileNotFoundError), inside(store) as root:
            descriptor = _open_locked(root, folder, tolerant=True)
            if folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _open_locked(root: int, folder: Path, *, tolerant: bool = False) -> int:
    """Descriptor of a folder, locked by this process alone; closing it lets go of the lock.

    Args:
        root: descriptor of the store that it is in.
        tolerant: do without a lock where the file system has none. Nobody else gets one there either, so the
            folder counts as alive for ever, which is the safe mistake.

    Raises BlockingIOError when another process holds the lock, FileNotFoundError, NotOurs, and OSError.
    """
    descriptor = open_below(root, folder.name, folder)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError) or not tolerant:
            os.close(descriptor)
            raise
    return descriptor


def _rename_unless_there(source: Path, parent: int, name: str) -> None:
    """Rename a file into the folder of that descriptor. Raises FileExistsError when the name is taken."""
    try:
        os.link(source, name, dst_dir_fd=parent)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here. Two processes may then both succeed, one after the other.
        if name in os.listdir(parent):
            raise FileExistsError(errno.EEXIST, "exists", name) from None
        os.rename(source, name, dst_dir_fd=parent)


def _parents(store: Path, target: Path) -> tuple[str, ...]:
    """Names of the folders between a store and something in it."""
    return target.parent.relative_to(store).parts


def _make_way(store: Path, target: Path) -> None:
    """Put aside whatever stands at `target` and is no published part; an empty folder just goes."""
    with inside(store, *_parents(store, target)) as parent:
        if target.name not in os.listdir(parent):
            return
        with contextlib.suppress(OSError):
            os.rmdir(target.name, dir_fd=parent)
            return
    try:
        aside = store / put_aside(store, *target.relative_to(store).parts)
    except FileNotFoundError:
        return  # another process was quicker
    if (aside / LAST_FILE).is_file():
        # Published in this very moment: back with it.
        with inside(store) as root, inside(store, *_parents(store, target)) as parent:
            os.rename(aside.name, target.name, src_dir_fd=root, dst_dir_fd=parent)
        _refuse_published(target)
    warnings.warn(f"{target} was not a published part of the store: it was moved to {aside}", stacklevel=3)


def _refuse_published(target: StorePath) -> None:
    if (target / LAST_FILE).is_file():
        raise AlreadyPublished(
            f"{target} is already published; what is published is never rewritten.\n"
            "Skip it (StoreWriter.published_scenes lists the scenes), or remove the folder to write it again."
        ) from None
