"""What a COCO-format folder holds: annotation files by split and version, and pictures.

`annotations/instances_<split><version>.json`, such as instances_train2017.json, has its pictures below
`<split><version>/`, below `images/`, or below the dataroot itself, whichever folder is there first. Between
split and version an underscore may stand.
"""

from __future__ import annotations

from pathlib import Path

from camera3d.errors import DatasetNotFound, SplitMismatch

ANNOTATIONS = "annotations"
START = "instances_"


def fitting_splits(dataroot: str | Path, version: str) -> tuple[str, ...]:
    """The splits that have an annotation file of that version, sorted."""
    names = sorted(path.stem for path in (Path(dataroot) / ANNOTATIONS).glob(f"{START}*.json"))
    ends = [name.removeprefix(START) for name in names if name.endswith(version)]
    return tuple(split for end in ends if (split := end.removesuffix(version).removesuffix("_")))


def annotation_file(dataroot: str | Path, version: str, split: str) -> Path:
    """The annotations of a split.

    Raises:
        DatasetNotFound: no such folder, or none with annotations.
        SplitMismatch: no such split in it.
    """
    root = Path(dataroot)
    if not (root / ANNOTATIONS).is_dir():
        raise DatasetNotFound(
            f"no COCO-format dataset at {root}: {'it has' if root.is_dir() else 'no such folder, so'} no"
            f" {ANNOTATIONS}/. Give the folder that holds {ANNOTATIONS}/{START}<split><version>.json, such as"
            f" {START}train2017.json for --split train --version 2017."
        )
    for between in ("", "_"):
        path = root / ANNOTATIONS / f"{START}{split}{between}{version}.json"
        if path.is_file():
            return path
    found = ", ".join(sorted(path.name for path in (root / ANNOTATIONS).glob("*.json"))) or "nothing"
    fits = ", ".join(fitting_splits(root, version)) or "none"
    raise SplitMismatch(
        f"no split {split!r} of version {version!r}: {root / ANNOTATIONS} has no"
        f" {START}{split}{version}.json, but {found}. Splits that fit {version}: {fits}."
    )


def images_folder(dataroot: str | Path, version: str, split: str) -> str:
    """Where the pictures of a split lie, relative to the dataroot."""
    names = (f"{split}{version}", f"{split}_{version}", "images")
    return next((name for name in names if (Path(dataroot) / name).is_dir()), "")
