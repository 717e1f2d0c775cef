"""The index of a COCO-format split: pictures with 2D boxes, in groups that stand where scenes do.

COCO knows no scenes and no time. The pictures keep the order of the annotation file; so many at a time are a
group, named by its place in this order, and a picture's place stands for its time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from camera3d.boxes import BOXES_2D, BoxKind
from camera3d.data.split_index import Column, SceneRows, SplitIndex
from camera3d.geometry import Float64

CAMERA = "image"
IMAGES_PER_GROUP = 100

COLUMNS: Mapping[str, Column] = {
    "sample_token": Column(dtype="S"),
    "timestamp_us": Column(dtype="int64"),
    "image_paths": Column(dtype="S", row_shape=(1,)),
    "image_hw": Column(dtype="int64", row_shape=(2,)),
    "image_id": Column(dtype="int64"),
    "annotation_count": Column(dtype="int64"),
    "gt_boxes": Column(dtype="float64", row_shape=(4,), of_annotations=True),
    "gt_labels": Column(dtype="int64", of_annotations=True),
    "crowd": Column(dtype="bool", of_annotations=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoFrame:
    """One picture. The arrays are read-only views into the index: copy before writing."""

    sample_token: str
    scene_token: str
    scene_name: str
    timestamp_us: int  # its place in the annotation file
    image_paths: tuple[str, ...]  # one, relative to the dataroot
    image_hw: tuple[int, int]  # as the annotations say
    image_id: int
    gt_boxes: Float64  # (n, 4) x1, y1, x2, y2 in pixels
    gt_labels: np.ndarray  # (n,) int64, positions in class_names
    crowd: np.ndarray  # (n,) bool: the box is around many of them, and no training wants it
    class_names: tuple[str, ...]

    any_colour: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoIndex(SplitIndex):
    """The pictures of one split; see SplitIndex."""

    dataset: ClassVar[str] = "coco"
    box_kind: ClassVar[BoxKind] = BOXES_2D
    own_columns: ClassVar[Mapping[str, Column]] = COLUMNS

    camera_names: tuple[str, ...] = (CAMERA,)

    def frame(self, row: int) -> CocoFrame:
        """The picture in row `row`, 0 ≤ row < len(self)."""
        c, at, group = self.columns, self.annotation_rows(row), self.scene_of_row(row)
        return CocoFrame(
            sample_token=c["sample_token"][row].decode(),
            scene_token=group.token,
            scene_name=group.name,
            timestamp_us=int(c["timestamp_us"][row]),
            image_paths=(c["image_paths"][row, 0].decode(),),
            image_hw=tuple(c["image_hw"][row].tolist()),
            image_id=int(c["image_id"][row]),
            gt_boxes=c["gt_boxes"][at],
            gt_labels=c["gt_labels"][at],
            crowd=c["crowd"][at],
            class_names=self.class_names,
        )


def groups_of(n_images: int, images_per_group: int) -> tuple[SceneRows, ...]:
    """Runs of so many pictures, the last one perhaps shorter; the name is the token too."""
    starts = range(0, n_images, images_per_group)
    names = [f"images-{number:06d}" for number in range(len(starts))]
    return tuple(
        SceneRows(name=name, token=name, first=start, stop=min(start + images_per_group, n_images))
        for name, start in zip(names, starts, strict=True)
    )
