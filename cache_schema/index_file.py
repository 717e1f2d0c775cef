"""Reads and writes the file of a sealed store's index."""

import hashlib
import mmap
from pathlib import Path

from cache_schema.documents import FileBytes, reading
from cache_schema.errors import Corrupt
from cache_schema.files import replace_file
from cache_schema.storage import S3Path, StorePath, fetched_again, read_ranges
from cache_schema.store_index import INDEX_NAME, MAX_INDEX_NBYTES, StoreIndex

REDO_INDEX = "Run the same dump again over the store: it writes the index anew when nothing else is wrong."


def write_index(store: StorePath, index: StoreIndex) -> None:
    """Put the index there, whole and durably, in the place of any other."""
    replace_file(store, store / INDEX_NAME, index.data)


def read_index(store: StorePath, nbytes: int, sha256: str) -> StoreIndex:
    """The index of a store that its seal speaks of: a map of the file, or the object in shared memory.

    Raises Corrupt when it is gone, damaged, or not the one that was sealed; Unreadable.
    """
    path = store / INDEX_NAME
    if not 0 < nbytes <= MAX_INDEX_NBYTES:
        raise Corrupt(f"{path} has {nbytes:,} bytes by the seal; {MAX_INDEX_NBYTES:,} is the limit")

    def read() -> mmap.mmap:
        data = _fetched(path, nbytes) if isinstance(path, S3Path) else _mapped(path, nbytes)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Corrupt(f"{path} is not the index that was sealed.\n{REDO_INDEX}")
        return data

    data = fetched_again(path, read)
    try:
        return StoreIndex(memoryview(data), whole=lambda: _require_whole(path, data, nbytes))
    except Corrupt as error:
        raise Corrupt(f"{path} {error}.\n{REDO_INDEX}") from None


def _require_whole(path: StorePath, data: mmap.mmap, nbytes: int) -> None:
    """Touching the map of a file that was cut kills the process, see `shard_reader`."""
    if isinstance(path, Path) and data.size() != nbytes:
        raise Corrupt(f"{path} has {data.size()} bytes, and the seal says {nbytes}.\n{REDO_INDEX}")


def _mapped(path: Path, nbytes: int) -> mmap.mmap:
    try:
        file = FileBytes(path)
        if file.nbytes != nbytes:
            raise Corrupt(f"{path} has {file.nbytes} bytes, and the seal says {nbytes}.\n{REDO_INDEX}")
        with reading(path):
            return mmap.mmap(file.fileno(), nbytes, prot=mmap.PROT_READ)
    except FileNotFoundError:
        raise Corrupt(f"{path} is gone.\n{REDO_INDEX}") from None


def _fetched(path: S3Path, nbytes: int) -> mmap.mmap:
    """In anonymous memory, which workers that are forked share."""
    data = mmap.mmap(-1, nbytes)
    read_ranges([(path, 0, nbytes, nbytes)], into=[memoryview(data)])
    return data
