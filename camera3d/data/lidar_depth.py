"""Depth of the pixels that a LiDAR sweep hits: what the depth of camera detectors can be trained on.

Shapes: n points, N cameras, H W of the network's input.
Source: Li et al., AAAI 2023 (arXiv 2206.10092), section 4.2, and the preparation in its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from camera3d.data.augmentation import ImageDraw
from camera3d.data.images import ImagePipeline
from camera3d.data.index import Frame
from camera3d.data.rig import frame_rig, pose_matrix
from camera3d.errors import ImagesBroken
from camera3d.geometry import Float64, invert_rigid

LIDAR_DEPTH = "lidar_depth"
POINT_NUMBERS = 5  # x, y, z, intensity, ring
MIN_PIXEL = 1.0


def lidar_depth(
    frame: Frame,
    dataroot: str | Path,
    pipeline: ImagePipeline,
    draws: Sequence[ImageDraw] | None = None,
) -> np.ndarray:
    """(N, H, W) float32: depth in metres of the pixels that a point of the keyframe's sweep lies in, or zero.

    Args:
        draws: what moved the images, see ImagePipeline.

    Raises ImagesBroken: the file is missing or no sweep.
    """
    rig = frame_rig(frame, pipeline, draws)
    return depth_maps(
        read_points(frame.lidar_path, dataroot),
        lidar2global=frame.ego_pose @ pose_matrix(frame.lidar_to_ego),
        cam2global=rig["cam_ego2global"] @ rig["cam2ego"],
        intrinsics=frame.intrinsics,
        image_transform=rig["image_transform"],
        image_hw=frame.image_hw,
        input_hw=pipeline.pad_hw,
    )


def read_points(path: str, dataroot: str | Path) -> np.ndarray:
    """(n, 3) float32 x, y, z in the LiDAR frame. Raises ImagesBroken."""
    advice = "Copy or unpack this file, or train without LiDAR: lidar_depth=False in the config."
    try:
        content = (Path(dataroot) / path).read_bytes()
    except OSError as error:
        raise ImagesBroken(
            f"{Path(dataroot) / path} cannot be read ({error.strerror}). {advice}",
            [(path, str(error.strerror))],
        ) from error
    if not content or len(content) % (4 * POINT_NUMBERS):
        fault = f"{len(content)} bytes are not a whole number of points"
        raise ImagesBroken(f"{Path(dataroot) / path}: {fault}. {advice}", [(path, fault)])
    return np.frombuffer(content, dtype=np.float32).reshape(-1, POINT_NUMBERS)[:, :3]


def depth_maps(
    points: np.ndarray,
    *,
    lidar2global: Float64,
    cam2global: Float64,
    intrinsics: Float64,
    image_transform: Float64,
    image_hw: Sequence[int],
    input_hw: Sequence[int],
) -> np.ndarray:
    """(N, H, W) float32, zero where no point is; of several points in a pixel the last of the sweep counts.

    Args:
        points: (n, 3) in the LiDAR frame.
        lidar2global: (4, 4) when the LiDAR fired; cam2global: (N, 4, 4) when the cameras did.
        intrinsics: (N, 3, 3) of the full picture.
        image_transform: (N, 4, 4), (u, v, depth, 1) of the full picture to the network's input.
        image_hw: of the full picture; input_hw: of the network's input.
    """
    height, width = input_hw
    maps = np.zeros((len(cam2global), height, width), dtype=np.float32)
    world = points.astype(np.float64) @ lidar2global[:3, :3].T + lidar2global[:3, 3]
    for depth_map, to_camera, intrinsic, transform in zip(
        maps, invert_rigid(cam2global), intrinsics, image_transform, strict=True
    ):
        seen = world @ to_camera[:3, :3].T + to_camera[:3, 3]
        seen = seen[seen[:, 2] > 0]
        depth = seen[:, 2]
        u, v = (seen @ intrinsic[:2].T / depth[:, None]).T
        inside = (u > MIN_PIXEL) & (u < image_hw[1] - MIN_PIXEL) & (v > MIN_PIXEL)
        inside &= v < image_hw[0] - MIN_PIXEL
        pixels = np.stack((u[inside], v[inside]), axis=1) @ transform[:2, :2].T + transform[:2, 3]
        columns, rows = pixels.astype(np.int64).T  # truncated towards zero, as the released code does
        there = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        depth_map[rows[there], columns[there]] = depth[inside][there]
    return maps
