"""The index of a nuScenes split, without the devkit.

Order: scenes by the time of their first frame, frames of a scene by time. The official loader sorts all
frames of a split by time; the two orders agree wherever scenes do not overlap in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from camera3d.boxes import BOXES_3D, BoxKind
from camera3d.data.names import CAMERA_NAMES, CLASS_NAMES
from camera3d.data.split_index import Column, SplitIndex
from camera3d.geometry import Float64, rigid_transform

COLUMNS: Mapping[str, Column] = {
    "sample_token": Column(dtype="S"),
    "timestamp_us": Column(dtype="int64"),
    "image_paths": Column(dtype="S", row_shape=(len(CAMERA_NAMES),)),
    "image_hw": Column(dtype="int64", row_shape=(2,)),
    "lidar2img": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 4, 4)),
    # Poses are x, y, z and a quaternion, w first: half of what matrices would take.
    "intrinsics": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 3, 3)),
    "camera_to_ego": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 7)),
    "camera_ego_to_global": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 7)),
    "lidar_to_ego": Column(dtype="float64", row_shape=(7,)),
    "lidar_path": Column(dtype="S"),
    "ego_translation": Column(dtype="float64", row_shape=(3,)),
    "ego_rotation": Column(dtype="float64", row_shape=(4,)),
    "can_bus_messages": Column(dtype="float64", row_shape=(9,)),
    "can_bus_present": Column(dtype="bool"),
    "annotation_count": Column(dtype="int64"),
    "annotation_token": Column(dtype="S", of_annotations=True),
    "gt_boxes": Column(dtype="float64", row_shape=(9,), of_annotations=True),
    "gt_labels": Column(dtype="int64", of_annotations=True),
    "num_lidar_pts": Column(dtype="int64", of_annotations=True),
    "valid": Column(dtype="bool", of_annotations=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One keyframe. The arrays are read-only views into the index: copy before writing."""

    sample_token: str
    scene_token: str
    scene_name: str
    timestamp_us: int
    image_paths: tuple[str, ...]  # relative to the dataroot, in the order of CAMERA_NAMES
    image_hw: tuple[int, int]  # native height and width in pixels, the same for the six cameras
    lidar2img: Float64  # (6, 4, 4), at native resolution
    intrinsics: Float64  # (6, 3, 3), at native resolution
    camera_to_ego: Float64  # (6, 7) poses: x y z in metres, then a quaternion, w first
    camera_ego_to_global: Float64  # (6, 7) poses of the ego when each camera fired
    lidar_to_ego: Float64  # (7,) pose
    lidar_path: str  # the sweep of LIDAR_TOP, relative to the dataroot
    ego_translation: Float64  # (3,) metres, global frame, when LIDAR_TOP fired
    ego_rotation: Float64  # (4,) quaternion, w first, ego to global, when LIDAR_TOP fired
    can_bus_messages: Float64  # (9,) accel, rotation_rate, vel; zeros when can_bus_present is False
    can_bus_present: bool
    gt_boxes: Float64  # (n, 9) LiDAR frame: gravity centre x y z, l w h, yaw right-handed, vx vy (may be NaN)
    gt_labels: np.ndarray  # (n,) int64, positions in class_names
    annotation_tokens: tuple[str, ...]
    num_lidar_pts: np.ndarray  # (n,) int64
    valid: np.ndarray  # (n,) bool: some LiDAR or radar point hits the box; official training drops the rest
    class_names: tuple[str, ...] = CLASS_NAMES

    any_colour: ClassVar[bool] = False  # whether its images may be grey

    @property
    def ego_pose(self) -> Float64:
        """Ego to global when LIDAR_TOP fired, (4, 4)."""
        return rigid_transform(self.ego_rotation, self.ego_translation)


@dataclass(frozen=True, kw_only=True, eq=False)
class NuScenesIndex(SplitIndex):
    """The keyframes of one split of one version; see SplitIndex."""

    dataset: ClassVar[str] = "nuscenes"
    box_kind: ClassVar[BoxKind] = BOXES_3D
    own_columns: ClassVar[Mapping[str, Column]] = COLUMNS

    class_names: tuple[str, ...] = CLASS_NAMES
    camera_names: tuple[str, ...] = CAMERA_NAMES

    def frame(self, row: int) -> Frame:
        """The frame in row `row`, 0 ≤ row < len(self)."""
        c, at, scene = self.columns, self.annotation_rows(row), self.scene_of_row(row)
        return Frame(
            sample_token=c["sample_token"][row].decode(),
            scene_token=scene.token,
            scene_name=scene.name,
            timestamp_us=int(c["timestamp_us"][row]),
            image_paths=tuple(path.decode() for path in c["image_paths"][row].tolist()),
            image_hw=tuple(c["image_hw"][row].tolist()),
            lidar2img=c["lidar2img"][row],
            intrinsics=c["intrinsics"][row],
            camera_to_ego=c["camera_to_ego"][row],
            camera_ego_to_global=c["camera_ego_to_global"][row],
            lidar_to_ego=c["lidar_to_ego"][row],
            lidar_path=c["lidar_path"][row].decode(),
            ego_translation=c["ego_translation"][row],
            ego_rotation=c["ego_rotation"][row],
            can_bus_messages=c["can_bus_messages"][row],
            can_bus_present=bool(c["can_bus_present"][row]),
            gt_boxes=c["gt_boxes"][at],
            gt_labels=c["gt_labels"][at],
            annotation_tokens=tuple(token.decode() for token in c["annotation_token"][at].tolist()),
            num_lidar_pts=c["num_lidar_pts"][at],
            valid=c["valid"][at],
            class_names=self.class_names,
        )

    def save(self, path: str | Path) -> None:
        """Write the index, whole or not at all."""
        from camera3d.data.index_file import write_index

        write_index(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> NuScenesIndex:
        """Read what `save` wrote; every number comes back exactly. Raises ConfigInvalid."""
        from camera3d.data.index_file import read_index

        return read_index(Path(path))
