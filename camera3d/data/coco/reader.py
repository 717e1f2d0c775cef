"""From a COCO-format annotation file to an index, through mmdet's own reader."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from camera3d.data.coco.folder import annotation_file, images_folder
from camera3d.data.coco.index import IMAGES_PER_GROUP, CocoIndex, groups_of
from camera3d.data.image_check import leaves_dataroot
from camera3d.data.split_index import check_scene_names, text_column
from camera3d.errors import ConfigInvalid, DatasetNotFound, ImagesBroken, SplitMismatch, shown

# How the readers of mmdet and pycocotools complain about a file that is not what they expect.
UNREADABLE = (AssertionError, AttributeError, IndexError, KeyError, OSError, TypeError, ValueError)


def build_coco_index(
    dataroot: str | Path,
    version: str,
    split: str,
    *,
    class_names: Sequence[str],
    images_per_group: int = IMAGES_PER_GROUP,
    scenes: Iterable[str] | None = None,
) -> CocoIndex:
    """Index the pictures of a split. As in mmdet, boxes without area or of other classes are left out.

    Args:
        dataroot: see camera3d.data.coco.folder.
        class_names: categories to keep, in label order; the file's own order does not matter.
        images_per_group: pictures of a group.
        scenes: names of the groups to keep; all by default.

    Raises DatasetNotFound, SplitMismatch, SampleUnknown (a group), ConfigInvalid (a class that the file
    lacks) or ImagesBroken (a path that leaves the dataroot).
    """
    path = annotation_file(dataroot, version, split)
    coco = open_coco(path)
    label_of = category_labels(coco, class_names, path)
    folder = PurePosixPath(images_folder(dataroot, version, split))
    try:
        rows = _read(coco, path, class_names)
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not rows:
        raise SplitMismatch(f"{path} names no picture. Give another split.")
    bad = [str(row["img_id"]) for row in rows if not _is_id(row["img_id"])]
    if bad:
        raise DatasetNotFound(
            f"{path}: ids of pictures must be whole numbers ≥ 0:\n{shown(bad)}\nRenumber them."
        )
    paths = [folder / row["img_path"] for row in rows]
    _check_paths(paths, path)
    instances = [instance for row in rows for instance in row["instances"]]
    index = CocoIndex(
        version=version,
        split=split,
        class_names=tuple(class_names),
        scene_rows=groups_of(len(rows), images_per_group),
        columns={
            "sample_token": text_column(sample_token(row["img_id"]) for row in rows),
            "timestamp_us": np.arange(len(rows), dtype=np.int64),
            "image_paths": text_column(map(str, paths))[:, None],
            "image_hw": np.array([(row["height"], row["width"]) for row in rows], dtype=np.int64),
            "image_id": np.array([row["img_id"] for row in rows], dtype=np.int64),
            "annotation_count": np.array([len(row["instances"]) for row in rows], dtype=np.int64),
            "gt_boxes": np.array([i["bbox"] for i in instances], dtype=np.float64).reshape(-1, 4),
            "gt_labels": np.array([label_of[i["bbox_label"]] for i in instances], dtype=np.int64),
            "crowd": np.array([i["ignore_flag"] for i in instances], dtype=bool),
        },
    )
    if scenes is None:
        return index
    check_scene_names(scenes, index.scene_names, f"split {split!r} of {version}")
    return index.select(scenes)


def open_coco(path: Path) -> COCO:
    """The annotations of a file, as pycocotools holds them. Raises DatasetNotFound for another file."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of its progress
            coco = COCO(str(path))
        lacking = [name for name in ("images", "categories") if not isinstance(coco.dataset.get(name), list)]
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if lacking:
        raise DatasetNotFound(f"{path} is not in COCO format: it has no list of {' and '.join(lacking)}.")
    return coco


def category_ids(coco: COCO, class_names: Sequence[str], path: Path) -> list[int]:
    """The file's id of each class. Raises ConfigInvalid for classes that it does not have once."""
    ids: dict[str, list[int]] = {}
    for category in coco.dataset["categories"]:
        ids.setdefault(category["name"], []).append(category["id"])
    bad = [name for name in class_names if len(ids.get(name, ())) != 1]
    if bad:
        raise ConfigInvalid(
            f"class_names: {', '.join(bad)}: not one category each of {path}, which has {', '.join(ids)}."
            " Name the classes as the file does."
        )
    return [ids[name][0] for name in class_names]


def category_labels(coco: COCO, class_names: Sequence[str], path: Path) -> list[int]:
    """By mmdet's label, which counts in the file's order of categories: the place in `class_names`."""
    ids = category_ids(coco, class_names, path)
    return [ids.index(category_id) for category_id in coco.get_cat_ids(cat_names=list(class_names))]


def sample_token(image_id: int) -> str:
    """The name of a picture in stores and results: its id, with the twelve digits of COCO's file names."""
    return f"{image_id:012d}"


def _read(coco: COCO, path: Path, class_names: Sequence[str]) -> list[Mapping]:
    """mmdet's records: `img_id`, `img_path`, `height`, `width` and `instances` of every picture."""

    class Reader(CocoDataset):
        COCOAPI = staticmethod(lambda _: coco)  # the file is parsed already

    dataset = Reader(
        ann_file=str(path),
        metainfo={"classes": tuple(class_names)},
        data_prefix={"img": ""},
        test_mode=True,
        pipeline=[],
        serialize_data=False,
    )
    return dataset.data_list


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_paths(paths: Sequence[PurePosixPath], file: Path) -> None:
    broken = [(str(path), "the path leaves the dataroot") for path in paths if leaves_dataroot(str(path))]
    if broken:
        lines = shown(f"{path!r}: {why}" for path, why in broken)
        raise ImagesBroken(
            f"{file} names {len(broken)} pictures that cannot be used:\n{lines}\nThey must lie below the"
            " dataroot.",
            broken,
        )


def _unreadable(path: Path, error: Exception) -> DatasetNotFound:
    return DatasetNotFound(
        f"{path} is not in COCO format ({type(error).__name__}: {error}). Pictures need id, file_name, height"
        " and width; annotations id, image_id, category_id, bbox, area and iscrowd; categories id and name."
    )
