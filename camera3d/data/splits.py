"""Which scenes a split names, and whether the split belongs to the version at hand.

The scene lists are the devkit's, custom `splits.json` (in the version's folder) included.
"""

from __future__ import annotations

import json
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes, get_scenes_of_split, is_predefined_split

from camera3d.errors import SplitMismatch

# The devkit states the same in create_splits_logs, by the end of the version's name.
SPLITS_OF_VERSION = {
    "trainval": ("train", "val", "train_detect", "train_track"),
    "mini": ("mini_train", "mini_val"),
    "test": ("test",),
}


def fitting_splits(dataroot: str | Path, version: str) -> tuple[str, ...]:
    """The splits that can be asked of `version`: the predefined ones and those of its splits.json."""
    predefined = [name for end, names in SPLITS_OF_VERSION.items() if version.endswith(end) for name in names]
    try:
        custom = list(_custom_splits(splits_file(dataroot, version)))
    except SplitMismatch:
        custom = []
    return (*predefined, *(name for name in custom if name not in create_splits_scenes()))


def splits_file(dataroot: str | Path, version: str) -> Path:
    """Where the devkit looks for custom splits."""
    return Path(dataroot) / version / "splits.json"


def check_split(dataroot: str | Path, version: str, split: str) -> None:
    """Raise SplitMismatch when `split` is unknown or belongs to another version. Reads no table."""
    fitting = fitting_splits(dataroot, version)
    if split in fitting:
        return
    fits = f"Splits that fit {version}: {', '.join(fitting) or 'none'}."
    if is_predefined_split(split):
        end = next(end for end, names in SPLITS_OF_VERSION.items() if split in names)
        raise SplitMismatch(
            f"split {split!r} belongs to v1.0-{end}, not to {version}. {fits} Change the split, or the"
            " version."
        )
    path = splits_file(dataroot, version)
    custom = _custom_splits(path)  # raises for an unreadable file
    found = f"{path} does not have it" if custom else f"{path} does not exist or is empty"
    raise SplitMismatch(f"unknown split {split!r}: {found}. {fits} Choose one, or add yours to that file.")


def scene_names_of_split(nusc: NuScenes, split: str) -> list[str]:
    """Names of the scenes of `split`, as the devkit lists them. Raises SplitMismatch."""
    check_split(nusc.dataroot, nusc.version, split)
    names = get_scenes_of_split(split, nusc)
    return list(dict.fromkeys(names))


def _custom_splits(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        return {}
    try:
        custom = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SplitMismatch(f"{path} is not JSON: {error}. Repair it or remove it.") from error
    if not isinstance(custom, dict):
        raise SplitMismatch(
            f"{path} holds no object of split names. Write {{'my_split': ['scene-0001', ...]}}."
        )
    for name, scenes in custom.items():
        if not isinstance(scenes, list) or not all(isinstance(scene, str) for scene in scenes):
            raise SplitMismatch(f"{path}: split {name!r} is not a list of scene names. Correct that entry.")
    return custom
