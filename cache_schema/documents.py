"""Small files of a store, and what they may be at the most: whoever wrote it may have meant harm.

A record is read only when it is a regular file, behind whatever links. It has a largest size, and as JSON a
largest depth and number of values, all tested before memory is taken for what is in it.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cache_schema.errors import Corrupt, Unreadable
from cache_schema.storage import S3Path, StorePath

MAX_NBYTES = 1 << 24  # ten times the manifest of a scene with 1,000 samples of 35 arrays
MAX_VALUES = 1 << 20
MAX_DEPTH = 64
_GONE = (errno.ENOENT, errno.ENOTDIR)
_DAMAGED = (errno.EIO, errno.ELOOP, errno.EISDIR)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Let what the system says about a file of the store be an error of the store.

    Raises FileNotFoundError when it is not there, Corrupt when it cannot be right, and Unreadable.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _GONE:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
        reason = os.strerror(error.errno or errno.EIO)
        if error.errno in _DAMAGED:
            raise Corrupt(f"{path} cannot be read: {reason}") from None
        way_out = "Let this user read it."
        if error.errno in (errno.EMFILE, errno.ENFILE):
            way_out = "Let a process open more files (ulimit -n 4096), or use fewer workers."
        raise Unreadable(f"{path} cannot be opened: {reason}.\n{way_out}") from None


def open_regular(path: Path) -> BinaryIO:
    """A file, open for reading; never a pipe or device, which could wait, or go on, for ever.

    Raises as `reading` does.
    """
    with reading(path):
        # Before it is opened: opening alone has effects on some devices.
        _require_regular(path, path.stat())
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            _require_regular(path, os.fstat(descriptor))
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise


class FileBytes:
    """The bytes of a file, to be sliced like a memoryview: a slice is read when it is asked for.

    Raises as `reading` does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_regular(path)
        self.nbytes = os.fstat(self._file.fileno()).st_size

    def fileno(self) -> int:
        """Descriptor of the file, which lives as long as this."""
        return self._file.fileno()

    def __getitem__(self, place: slice) -> memoryview:
        start, stop, _ = place.indices(self.nbytes)
        with reading(self._path):
            self._file.seek(start)
            data = self._file.read(stop - start)
        if len(data) != stop - start:
            raise Corrupt(f"{self._path} was cut while it was read")
        return memoryview(data)


def read_document(path: StorePath, limit: int = MAX_NBYTES) -> bytes:
    """A whole file of the store that has at most `limit` bytes.

    Raises FileNotFoundError when there is none, Corrupt when it is larger or no regular file, Unreadable, and
    StorageUnavailable.
    """
    if isinstance(path, S3Path):
        return path.read_bytes(limit)
    with open_regular(path) as file, reading(path):
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1) or b"" if size <= limit else b""
    if size > limit or len(data) > limit:
        raise Corrupt(f"{path} has {max(size, len(data)):,} bytes; at most {limit:,} are allowed")
    return data


def is_there(path: StorePath) -> bool:
    """Whether there is a regular file, or an object, of that name. Raises Unreadable."""
    if isinstance(path, S3Path):
        return path.exists()
    with reading(path):
        return path.is_file()


def parse_json(data: bytes, path: StorePath) -> Any:
    """What a JSON document says. Raises Corrupt when it is none, or beyond any that a store holds."""
    require_limits(data, path)
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path} is not JSON: {error}") from None


def require_limits(data: bytes, path: StorePath) -> None:
    """Raise Corrupt when a JSON document is too large, too deep or has too many values."""
    for count, limit, what in (
        (len, MAX_NBYTES, "bytes"),
        (_n_values, MAX_VALUES, "values"),
        (_depth, MAX_DEPTH, "levels"),  # last: it takes memory by the byte
    ):
        found = count(data)
        if found > limit:
            raise Corrupt(f"{path} has {found:,} {what}; at most {limit:,} are allowed")


def _n_values(data: bytes) -> int:
    """Values in a document, or more: commas and brackets in texts count too."""
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def _depth(data: bytes) -> int:
    """How deep lists and objects lie in one another, or more; brackets in texts need not count."""
    if (n_brackets := data.count(b"[") + data.count(b"{")) <= MAX_DEPTH:
        return n_brackets
    plain = np.frombuffer(data.replace(b"\\\\", b"  ").replace(b'\\"', b"  "), np.uint8)
    # Wraps at 256, which is even: odd still means inside a text.
    in_text = np.cumsum(plain == ord('"'), dtype=np.uint8) & 1
    brackets = plain[(in_text == 0) & np.isin(plain, list(b"[]{}"))]
    if not brackets.size:
        return 0
    return int(np.cumsum(np.where(np.isin(brackets, list(b"[{")), 1, -1)).max())


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number that JSON allows")


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Corrupt(f"{path} is not a regular file")
