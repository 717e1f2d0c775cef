"""Points and box corners, written out once more: what the code's own ways are held to."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def project_points(points: ArrayLike, lidar2img: ArrayLike) -> tuple[Float64, Float64]:
    """Project LiDAR points (N, 3), in metres, with `lidar2img` (..., 4, 4).

    Returns pixels (..., N, 2), u then v, and depths (..., N) in metres. A point with depth ≤ 0 lies behind
    the camera and its pixel means nothing.
    """
    points = np.asarray(points, dtype=np.float64)
    homogeneous = np.concatenate((points, np.ones((len(points), 1))), axis=1)
    projected = np.einsum("...ij,nj->...ni", np.asarray(lidar2img, dtype=np.float64), homogeneous)
    depth = projected[..., 2]
    # Never divide by zero: the sign of the depth, which the caller must look at, is returned unchanged.
    safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return projected[..., :2] / safe[..., None], depth


def box_corners(boxes: ArrayLike) -> Float64:
    """The eight corners (n, 8, 3) of boxes (n, ≥7): gravity centre x, y, z, l, w, h, yaw right-handed."""
    boxes = np.asarray(boxes, dtype=np.float64)
    signs = np.array([(i, j, k) for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)])
    local = signs[None] * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    turned = np.stack(
        (cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1], local[..., 2]),
        axis=-1,
    )
    return turned + boxes[:, None, :3]
