"""Rigid geometry in numpy: quaternions, poses, and the projection from the LiDAR frame into the images.

Quaternions are (..., 4) with w first, need not be normalised, and turn column vectors. Rigid transforms are
(..., 4, 4) and act on column vectors: `a_to_b @ point_a = point_b`. Everything is float64 and works on any
number of leading dimensions, because the index of a split transforms a million boxes at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def normalise_quaternion(quaternion: ArrayLike) -> Float64:
    """The unit quaternion (..., 4) of the same rotation."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)


def multiply_quaternions(left: ArrayLike, right: ArrayLike) -> Float64:
    """Hamilton product (..., 4): the rotation `right` followed by the rotation `left`."""
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    aw, ax, ay, az = np.moveaxis(left, -1, 0)
    bw, bx, by, bz = np.moveaxis(right, -1, 0)
    return np.stack(
        (
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ),
        axis=-1,
    )


def conjugate_quaternion(quaternion: ArrayLike) -> Float64:
    """(..., 4): the inverse rotation, for unit quaternions."""
    return np.asarray(quaternion, dtype=np.float64) * np.array([1.0, -1.0, -1.0, -1.0])


def quaternion_to_matrix(quaternion: ArrayLike) -> Float64:
    """Rotation matrices (..., 3, 3)."""
    w, x, y, z = np.moveaxis(normalise_quaternion(quaternion), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def heading_yaw(quaternion: ArrayLike) -> Float64:
    """Yaw (...) in radians, (-π, π]: the direction of the turned x axis seen from above.

    This is `quaternion_yaw` of the devkit, and what the CAN-bus vector holds for the ego vehicle.
    """
    w, x, y, z = np.moveaxis(normalise_quaternion(quaternion), -1, 0)
    return np.arctan2(2 * (x * y + w * z), 1 - 2 * (y * y + z * z))


def box_yaw(quaternion: ArrayLike) -> Float64:
    """Yaw (...) in radians, (-π, π]: the first of pyquaternion's yaw, pitch, roll angles.

    The official info files take the yaw of a box this way. It differs from `heading_yaw` by the tilt of the
    box against the LiDAR, some hundredths of a radian, so each is kept where the official code has it.
    """
    w, x, y, z = np.moveaxis(normalise_quaternion(quaternion), -1, 0)
    return np.arctan2(2 * (w * z - x * y), 1 - 2 * (y * y + z * z))


def rigid_transform(rotation: ArrayLike, translation: ArrayLike) -> Float64:
    """(..., 4, 4) from quaternions (..., 4) and translations (..., 3)."""
    matrix = quaternion_to_matrix(rotation)
    translation = np.asarray(translation, dtype=np.float64)
    transform = np.zeros((*matrix.shape[:-2], 4, 4))
    transform[..., :3, :3] = matrix
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1.0
    return transform


def invert_rigid(transform: ArrayLike) -> Float64:
    """The inverse of rigid transforms (..., 4, 4), by transposing the rotation."""
    transform = np.asarray(transform, dtype=np.float64)
    transposed = np.swapaxes(transform[..., :3, :3], -1, -2)
    inverse = np.zeros_like(transform)
    inverse[..., :3, :3] = transposed
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", transposed, transform[..., :3, 3])
    inverse[..., 3, 3] = 1.0
    return inverse


def lidar_to_image(
    lidar_to_ego: ArrayLike,
    ego_to_global_at_lidar: ArrayLike,
    camera_to_ego: ArrayLike,
    ego_to_global_at_camera: ArrayLike,
    intrinsic: ArrayLike,
) -> Float64:
    """`lidar2img` (..., 4, 4): LiDAR coordinates in metres to (u·depth, v·depth, depth, 1) in native pixels.

    The chain is the official one: camera → ego when the camera fired → global → ego when the LiDAR fired →
    LiDAR, inverted, then the intrinsics in the upper left of a 4×4. The first four arguments are rigid
    transforms (..., 4, 4), `intrinsic` is (..., 3, 3); leading dimensions broadcast.
    Source: nuscenes_converter.py (obtain_sensor2top), nuscenes_dataset.py (get_data_info) of Li et al., ECCV
    2022.
    """
    lidar_to_global = np.asarray(ego_to_global_at_lidar) @ np.asarray(lidar_to_ego)
    global_to_camera = invert_rigid(camera_to_ego) @ invert_rigid(ego_to_global_at_camera)
    intrinsic = np.asarray(intrinsic, dtype=np.float64)
    viewpad = np.zeros((*intrinsic.shape[:-2], 4, 4))
    viewpad[..., :3, :3] = intrinsic
    viewpad[..., 3, 3] = 1.0
    return viewpad @ (global_to_camera @ lidar_to_global)
