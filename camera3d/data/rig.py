"""What a frame says of its sensors, as the matrices that detectors read.

Shapes: 6 cameras in the order of CAMERA_NAMES. Matrices act on column vectors.

The ego frame of a sample is one for all cameras: the mean of the ego poses at the six moments at which they
fired.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camera3d.data.augmentation import ImageDraw
from camera3d.data.images import ImagePipeline
from camera3d.data.index import Frame
from camera3d.geometry import Float64, invert_rigid, rigid_transform

RIG_NAMES = ("image_transform", "intrinsics", "cam2ego", "cam_ego2global", "ego2global", "lidar2ego")


def pose_matrix(pose: Float64) -> Float64:
    """(..., 4, 4) of poses (..., 7): x, y, z and a quaternion, w first."""
    return rigid_transform(pose[..., 3:], pose[..., :3])


def mean_pose(poses: Float64) -> Float64:
    """(7,) mean translation and, component by component, mean quaternion of neighbouring poses (n, 7)."""
    # q and -q are the same rotation, and a table may hold either.
    signs = np.where(poses[:, 3:] @ poses[0, 3:] < 0, -1.0, 1.0)
    return np.concatenate((poses[:, :3], poses[:, 3:] * signs[:, None]), axis=1).mean(axis=0)


def frame_rig(
    frame: Frame, pipeline: ImagePipeline, draws: Sequence[ImageDraw] | None = None
) -> dict[str, Float64]:
    """The matrices of RIG_NAMES, float64; of images that `draws` moved, see ImagePipeline.

    `image_transform` (6, 4, 4): (u, v, depth, 1) of the full picture to the network's input.
    `intrinsics` (6, 4, 4): of the full picture, in the upper left.
    `cam2ego` (6, 4, 4): camera to the ego when it fired. `cam_ego2global` (6, 4, 4): that ego to global.
    `ego2global` (4, 4): of the sample's ego frame. `lidar2ego` (4, 4): LiDAR to the sample's ego frame.
    """
    cameras = len(frame.camera_to_ego)
    intrinsics = np.tile(np.eye(4), (cameras, 1, 1))
    intrinsics[:, :3, :3] = frame.intrinsics
    ego2global = pose_matrix(mean_pose(frame.camera_ego_to_global))
    lidar2global = frame.ego_pose @ pose_matrix(frame.lidar_to_ego)
    to_input = pipeline.image_transform(frame.image_hw, draws)
    return {
        "image_transform": np.broadcast_to(to_input, (cameras, 4, 4)).copy(),
        "intrinsics": intrinsics,
        "cam2ego": pose_matrix(frame.camera_to_ego),
        "cam_ego2global": pose_matrix(frame.camera_ego_to_global),
        "ego2global": ego2global,
        "lidar2ego": invert_rigid(ego2global) @ lidar2global,
    }
