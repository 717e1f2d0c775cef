"""Folders of a store, reached one below the other without following a link.

What is renamed or removed is named relative to a folder that was opened here. So it lies inside the store and
on its file system, whatever somebody has put there. Only the path of the store itself may lead through links.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cache_schema.errors import NotOurs

ASIDE_PREFIX = ".aside-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def inside(store: Path, *names: str) -> Iterator[int]:
    """Descriptor of a folder of the store, open during the block.

    Raises NotOurs when it is a link, no folder or on another file system, or one on the way to it is, and
    FileNotFoundError when it is not there.
    """
    folder = os.open(store, _FOLDER)
    try:
        for depth, name in enumerate(names, 1):
            below = open_below(folder, name, store.joinpath(*names[:depth]))
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def open_below(folder: int, name: str, path: Path) -> int:
    """Descriptor of a folder in the folder with that descriptor; raises as `inside`, naming `path`."""
    try:
        below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise NotOurs(
            f"{path} is a link, or not a folder: no dump made it, so nothing in it is changed.\n"
            "Put the folder itself there, or give another store."
        ) from None
    if os.fstat(below).st_dev != os.fstat(folder).st_dev:
        os.close(below)
        raise NotOurs(f"{path} is on another file system than the store, so nothing in it is changed")
    return below


def put_aside(store: Path, *names: str) -> str:
    """Rename a file or folder of the store, or a link there, to a name in the root that counts as no part.

    Returns that name. Raises as `inside`, and OSError.
    """
    aside = f"{ASIDE_PREFIX}{names[-1]}-{secrets.token_hex(4)}"
    with inside(store) as root, inside(store, *names[:-1]) as parent:
        os.rename(names[-1], aside, src_dir_fd=parent, dst_dir_fd=root)
        os.fsync(parent)
    return aside


def remove_tree(folder: int, name: str, path: Path) -> None:
    """Remove a folder and all that is in it. A link in it goes, what it leads to stays.

    Raises as `inside`, naming `path`, and OSError; what was removed before that is gone.
    """
    below = open_below(folder, name, path)
    try:
        with os.scandir(below) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry, is_folder in found:
            if is_folder:
                remove_tree(below, entry, path / entry)
            else:
                os.unlink(entry, dir_fd=below)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)
