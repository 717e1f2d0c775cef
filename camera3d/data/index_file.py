"""An index as one .npz file: an array an entry, nothing compressed and nothing pickled.

Beside the columns it holds the entries of HEAD. Text is UTF-8 in bytes of fixed width. What an entry claims
to be is compared with what belongs there, and its length with what the file has, before memory is taken for
it; the checksums of the zip format tell whether the bytes are those that were written. The file is written
under a temporary name and renamed when the disk has it: no reader and no crash leaves half of one.
"""

from __future__ import annotations

import math
import os
import struct
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from camera3d.data.index import COLUMNS, NuScenesIndex
from camera3d.data.split_index import SceneRows, text_column
from camera3d.errors import ConfigInvalid, ShapeMismatch, shown
from camera3d.files import replaced

FORMAT = "camera3d.nuscenes_index"
SCHEMA_VERSION = 3
WAY_OUT = "Delete the file and build the index again."
# What zipfile and numpy raise on bytes that no writer of ours has written.
UNREADABLE = (
    *(zipfile.BadZipFile, struct.error, tokenize.TokenError, SyntaxError),
    *(ValueError, TypeError, KeyError, RuntimeError, EOFError, OverflowError),
)


@dataclass(frozen=True)
class Entry:
    """One array of the file: dtype ("S" is text of any width), and shape with None for any length."""

    dtype: str
    shape: tuple[int | None, ...] = ()

    def fits(self, dtype: np.dtype, shape: tuple[int, ...]) -> bool:
        """Whether an array is one of these."""
        if self.dtype == "S":
            same_dtype = dtype.kind == "S" and dtype.itemsize > 0
        else:
            same_dtype = dtype == np.dtype(self.dtype)
        lengths = zip(self.shape, shape, strict=False)
        return same_dtype and len(shape) == len(self.shape) and all(a in (None, b) for a, b in lengths)

    def __str__(self) -> str:
        return f"{self.dtype} of shape ({', '.join('any' if n is None else str(n) for n in self.shape)})"


HEAD: Mapping[str, Entry] = {
    "format": Entry("S"),
    "schema_version": Entry("int64"),
    "version": Entry("S"),
    "split": Entry("S"),
    "class_names": Entry("S", (None,)),
    "camera_names": Entry("S", (None,)),
    "notes": Entry("S", (None,)),
    "scene_name": Entry("S", (None,)),
    "scene_token": Entry("S", (None,)),
    "scene_rows": Entry("int64", (None, 2)),  # first, stop
}
ENTRIES = HEAD | {name: Entry(column.dtype, (None, *column.row_shape)) for name, column in COLUMNS.items()}


def write_index(index: NuScenesIndex, path: Path) -> None:
    """Write `index` to `path`, atomically; folders on the way are made."""
    scenes = index.scene_rows
    entries = {
        "format": _text(FORMAT),
        "schema_version": np.array(SCHEMA_VERSION, dtype=np.int64),
        "version": _text(index.version),
        "split": _text(index.split),
        "class_names": text_column(index.class_names),
        "camera_names": text_column(index.camera_names),
        "notes": text_column(index.notes),
        "scene_name": text_column(scene.name for scene in scenes),
        "scene_token": text_column(scene.token for scene in scenes),
        "scene_rows": np.array([(s.first, s.stop) for s in scenes], dtype=np.int64).reshape(-1, 2),
        **index.columns,
    }
    with replaced(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **entries)


def read_index(path: Path) -> NuScenesIndex:
    """Read an index file.

    Raises ConfigInvalid when the file is not an index, is of another schema, or does not fit together.
    """
    try:
        with path.open("rb") as file:
            return _index_of(_entries(file, path))
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror or error}. Build the index again.") from error
    except UNREADABLE as error:
        raise ConfigInvalid(f"{path} is damaged ({type(error).__name__}: {error}). {WAY_OUT}") from error
    except ShapeMismatch as error:
        raise ConfigInvalid(f"{path} is damaged: {error}\n{WAY_OUT}") from error


def _entries(file, path: Path) -> dict[str, np.ndarray]:
    """All entries. Raises ConfigInvalid and what is UNREADABLE."""
    file_bytes = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        claimed = sum(info.file_size for info in archive.infolist())
        if claimed > file_bytes:
            raise ConfigInvalid(f"{path} claims {claimed:,} bytes and has {file_bytes:,}. {WAY_OUT}")
        _check_kind(archive, members, path)
        faults = [
            f"{name}: {fault}"
            for name, entry in ENTRIES.items()
            if (fault := _fault(archive, members.get(name), entry))
        ]
        faults += [f"{name}: unknown entry" for name in members if name not in ENTRIES]
        if faults:
            raise ConfigInvalid(f"{path} is damaged:\n{shown(faults)}\n{WAY_OUT}")
        return {name: _array(archive, members[name]) for name in ENTRIES}


def _check_kind(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], path: Path) -> None:
    """Raise ConfigInvalid for a file of another kind or schema: its entries are none of our business."""
    if _fault(archive, members.get("format"), HEAD["format"]) or (
        _array(archive, members["format"]) != FORMAT.encode()
    ):
        raise ConfigInvalid(f"{path} is not an index of nuScenes keyframes. {WAY_OUT}")
    if fault := _fault(archive, members.get("schema_version"), HEAD["schema_version"]):
        raise ConfigInvalid(f"{path} is damaged: schema_version: {fault}. {WAY_OUT}")
    found = int(_array(archive, members["schema_version"]))
    if found != SCHEMA_VERSION:
        raise ConfigInvalid(f"{path} has schema_version {found}, this code reads {SCHEMA_VERSION}. {WAY_OUT}")


def _fault(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None, entry: Entry) -> str | None:
    """What is wrong with an entry, by all that is known before its numbers are read."""
    if info is None:
        return "missing"
    # Compressed, a short file could ask for any amount of memory.
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        return "compressed"
    with archive.open(info) as member:
        if npy.read_magic(member) != (1, 0):
            return "not an array of .npy version 1.0"
        shape, _, dtype = npy.read_array_header_1_0(member)
        held = info.file_size - member.tell()
    if not entry.fits(dtype, shape):
        return f"expected {entry}, got {dtype} of shape {shape}"
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        return f"{dtype} of shape {shape} does not take the {held:,} bytes that are there"
    return None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as member:
        return npy.read_array(member, allow_pickle=False)


def _index_of(entries: Mapping[str, np.ndarray]) -> NuScenesIndex:
    names, tokens = _texts(entries["scene_name"]), _texts(entries["scene_token"])
    rows = entries["scene_rows"].tolist()
    return NuScenesIndex(
        version=entries["version"].item().decode(),
        split=entries["split"].item().decode(),
        class_names=_texts(entries["class_names"]),
        camera_names=_texts(entries["camera_names"]),
        notes=_texts(entries["notes"]),
        scene_rows=tuple(
            SceneRows(name=name, token=token, first=first, stop=stop)
            for name, token, (first, stop) in zip(names, tokens, rows, strict=True)
        ),
        columns={name: entries[name] for name in COLUMNS},
    )


def _text(text: str) -> np.ndarray:
    return np.array(text.encode(), dtype="S")


def _texts(column: np.ndarray) -> tuple[str, ...]:
    return tuple(text.decode() for text in column.tolist())
