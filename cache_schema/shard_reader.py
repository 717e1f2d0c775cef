"""Reads samples out of one shard through a memory map.

One copy from the page cache into the caller's own array is all it takes, which is what np.memmap takes too.
Nothing here starts a thread, so forked data workers may use what their parent opened.
"""

import mmap
from pathlib import Path

import numpy as np

from cache_schema.codec import decode
from cache_schema.errors import Corrupt
from cache_schema.shard_index import MISSING, unpack_index
from cache_schema.spec import ArraySpec


class ShardReader:
    """One shard of one array.

    Args:
        path: the shard file.
        array: whose shard it is.
        slots: chunks that fit into it.
        nbytes: its size as recorded, in bytes.

    Raises:
        Corrupt: the file is gone, has another size, or its index is damaged.
    """

    def __init__(self, path: Path, array: ArraySpec, *, slots: int, nbytes: int) -> None:
        self._path = path
        self._array = array
        try:
            with path.open("rb") as file:
                # A map that is longer than its file kills the process on access: the size is tested first.
                size = file.seek(0, 2)
                if size != nbytes:
                    raise Corrupt(f"{path} has {size} bytes, {nbytes} were written")
                self._view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
        except FileNotFoundError:
            raise Corrupt(f"{path} is gone") from None
        try:
            self._index = unpack_index(self._view, slots)
        except Corrupt as error:
            raise Corrupt(f"{path}: {error}") from None

    def read(self, slot: int) -> np.ndarray:
        """Values of the sample in a slot, in memory of their own. Raises Corrupt when they cannot be."""
        offset, n_bytes = (int(number) for number in self._index[slot])
        if offset == MISSING:
            raise Corrupt(f"{self._path}: no chunk in slot {slot}")
        try:
            return decode(self._array, self._view[offset : offset + n_bytes])
        except Corrupt as error:
            raise Corrupt(f"{self._path}, slot {slot}: {error}") from None
