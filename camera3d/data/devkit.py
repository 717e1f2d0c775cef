"""Opening a dataroot with the nuScenes devkit, with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

from nuscenes import NuScenes

from camera3d.errors import DatasetNotFound, shown

TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)


def check_dataroot(dataroot: str | Path, version: str) -> Path:
    """The folder of the version's tables. Raises DatasetNotFound for the root, the version or a table."""
    root = Path(dataroot)
    if not root.is_dir():
        raise DatasetNotFound(
            f"no nuScenes dataroot at {root}: no such folder. Give the folder that holds samples/, maps/ and"
            f" {version}/."
        )
    table_root = root / version
    if not table_root.is_dir():
        found = ", ".join(sorted(path.parent.name for path in root.glob("*/scene.json"))) or "none"
        raise DatasetNotFound(
            f"no version {version!r} in {root}: {table_root} is not a folder. Versions there:"
            f" {found}. Choose one of these, or unpack the metadata of {version} into it."
        )
    missing = [f"{table}.json" for table in TABLES if not (table_root / f"{table}.json").is_file()]
    if missing:
        raise DatasetNotFound(
            f"{table_root} lacks tables:\n{shown(missing)}\nUnpack the metadata of {version} again."
        )
    return table_root


def open_nuscenes(dataroot: str | Path, version: str) -> NuScenes:
    """The devkit's database. Raises DatasetNotFound when it cannot be loaded, naming the table at fault."""
    table_root = check_dataroot(dataroot, version)
    try:
        return NuScenes(version=version, dataroot=str(dataroot), verbose=False)
    except (ValueError, AssertionError, KeyError, OSError) as error:
        raise DatasetNotFound(
            f"the nuScenes devkit cannot load {table_root}:\n{shown(_faults(table_root, error))}\n"
            f"Unpack the metadata and the maps of {version} again."
        ) from error


def _faults(table_root: Path, error: Exception) -> list[str]:
    """Tables that are not JSON, if any; otherwise what the devkit said. Only read after a failure."""
    faults = []
    for table in TABLES:
        path = table_root / f"{table}.json"
        try:
            if not isinstance(json.loads(path.read_text(encoding="utf-8")), list):
                faults.append(f"{path.name}: not a list of records")
        except ValueError as why:
            faults.append(f"{path.name}: not JSON, {why}")
    return faults or [f"{type(error).__name__}: {error}"]
