"""What the cameras say of themselves, and where the points of the frustum lie in the ego frame.

Shapes: B batch, N cameras, D depth bins, h w cells of the image map.
Source: Li et al., BEVDepth, AAAI 2023, section 4.3 (camera parameters), and Philion and Fidler, Lift, Splat,
Shoot, ECCV 2020 (frustum).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Numbers of `camera_vector`: intrinsics, image transform, BEV transform, pose.
CAMERA_NUMBERS = 4 + 6 + 5 + 12


class Rig(NamedTuple):
    """The cameras of a frame; points are column vectors.

    sensor2ego: (B, N, 4, 4), camera to the ego frame of the key frame, metres.
    intrinsics: (B, N, 4, 4), of the camera's full picture.
    image_transform: (B, N, 4, 4), (u, v, depth, 1) of the full picture to the network's input.
    bev_transform: (B, 4, 4), the ego frame to the frame of the BEV map; the identity unless augmented.
    """

    sensor2ego: Tensor
    intrinsics: Tensor
    image_transform: Tensor
    bev_transform: Tensor


def camera_vector(rig: Rig) -> Tensor:
    """(B, N, 27) float32: what the depth net is told of each camera."""
    intrinsics, image, bev = rig.intrinsics, rig.image_transform, rig.bev_transform[:, None]
    bev = bev.expand(*image.shape[:2], 4, 4)
    numbers = [intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 2], intrinsics[..., 1, 2]]
    numbers += [image[..., row, column] for row in (0, 1) for column in (0, 1, 3)]
    numbers += [bev[..., row, column] for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))]
    pose = rig.sensor2ego[..., :3, :].flatten(-2)
    return torch.cat((torch.stack([number.to(pose) for number in numbers], dim=-1), pose), dim=-1).float()


def frustum_points(
    image_hw: tuple[int, int], stride: int, depth_bins_m: tuple[float, float, float]
) -> Tensor:
    """(D, h, w, 4) float32: u, v in input pixels, depth in metres, one.

    Columns and rows are spread evenly from the first to the last pixel, both ends included. These are not the
    centres of cells, and the released weights were trained so.

    Args:
        depth_bins_m: first bin, end (excluded) and step; a bin stands at its lower edge.
    """
    height, width = (side // stride for side in image_hw)
    depth = torch.arange(*depth_bins_m, dtype=torch.float32)[:, None, None]
    v = torch.linspace(0, image_hw[0] - 1, height, dtype=torch.float32)[None, :, None]
    u = torch.linspace(0, image_hw[1] - 1, width, dtype=torch.float32)[None, None, :]
    depth, v, u = torch.broadcast_tensors(depth, v, u)
    return torch.stack((u, v, depth, torch.ones_like(depth)), dim=-1)


def frustum_geometry(frustum_DhwX: Tensor, rig: Rig) -> Tensor:
    """(B, N, D, h, w, 3) float32: the frustum's points in metres of the BEV map's frame."""
    # Poses are multiplied and inverted in double precision; points need no more than single.
    to_picture = _inverse(rig.image_transform)
    to_ego = rig.bev_transform.double()[:, None] @ rig.sensor2ego.double()
    to_ego = to_ego @ _inverse(rig.intrinsics)
    with torch.autocast(frustum_DhwX.device.type, enabled=False):
        points = _moved(frustum_DhwX.float(), to_picture.float())
        points = torch.cat((points[..., :2] * points[..., 2:3], points[..., 2:]), dim=-1)
        return _moved(points, to_ego.float())[..., :3]


def _inverse(matrices: Tensor) -> Tensor:
    # The variant that does not make the host wait to learn whether a matrix is singular.
    return torch.linalg.inv_ex(matrices.double()).inverse


def _moved(points: Tensor, matrices_BN44: Tensor) -> Tensor:
    """Points (D, h, w, 4) or (B, N, D, h, w, 4) by the matrix of each camera."""
    if points.dim() == 4:
        return torch.einsum("bnij,dhwj->bndhwi", matrices_BN44, points)
    return torch.einsum("bnij,bndhwj->bndhwi", matrices_BN44, points)
