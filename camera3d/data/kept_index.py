"""An index is kept as a file between runs, so that the second run does not load the devkit at all.

It lies in `$XDG_CACHE_HOME/focalcache/index` (`~/.cache` when that is not set), under a name made from all
it depends on: the dataroot, the version, the split, sizes and times of the tables, the CAN bus folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from pathlib import Path

from camera3d.data.devkit import TABLES, check_dataroot
from camera3d.data.index import NuScenesIndex
from camera3d.data.index_file import SCHEMA_VERSION
from camera3d.data.nuscenes_reader import build_index, warn_of
from camera3d.data.scene_chain import MAX_GAP_S
from camera3d.data.splits import check_split, splits_file
from camera3d.errors import ConfigInvalid


def load_or_build_index(
    dataroot: str | Path,
    version: str,
    split: str,
    *,
    scenes: Iterable[str] | None = None,
    max_gap_s: float = MAX_GAP_S,
) -> NuScenesIndex:
    """`build_index`, or what it returned before for the same tables; same arguments, errors and warnings.

    A kept file that cannot be read is replaced; a folder that cannot be written costs the time of building
    again, and a warning.
    """
    check_dataroot(dataroot, version)
    check_split(dataroot, version, split)
    scenes = None if scenes is None else sorted(set(scenes))
    path = kept_path(dataroot, version, split, scenes=scenes, max_gap_s=max_gap_s)
    if path.is_file():
        try:
            index = NuScenesIndex.load(path)
        except ConfigInvalid as error:
            warnings.warn(f"building the index again: {error}", stacklevel=2)
        else:
            warn_of(index)
            return index
    index = build_index(dataroot, version, split, scenes=scenes, max_gap_s=max_gap_s)
    try:
        index.save(path)
    except OSError as error:
        warnings.warn(
            f"the index is not kept for the next run: {path}: {error.strerror}. Set XDG_CACHE_HOME to a"
            " folder that can be written.",
            stacklevel=2,
        )
    return index


def kept_path(
    dataroot: str | Path,
    version: str,
    split: str,
    *,
    scenes: list[str] | None = None,
    max_gap_s: float = MAX_GAP_S,
) -> Path:
    """Where the index of these tables is kept. Anything that would change the index changes the name."""
    root = Path(dataroot).resolve()
    facts = {
        "schema_version": SCHEMA_VERSION,
        "devkit": installed_version("nuscenes-devkit"),
        "dataroot": str(root),
        "version": version,
        "split": split,
        "scenes": scenes,
        "max_gap_s": max_gap_s,
        "tables": {name: _stamp(root / version / f"{name}.json") for name in TABLES},
        "splits": _stamp(splits_file(root, version)),
        "can_bus": _stamp(root / "can_bus"),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    safe_split = "".join(c if c.isalnum() or c in "-_" else "_" for c in split)[:60]
    return Path(home) / "focalcache" / "index" / f"{version}-{safe_split}-{digest[:20]}.npz"


def _stamp(path: Path) -> list[int] | None:
    """Size and time of a file or folder, None when there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return [status.st_size, status.st_mtime_ns]
