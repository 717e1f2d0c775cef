"""Reference points in the images: where each camera would see them, and whether it does.

Shapes: B batch, N cameras, Q object queries, H W input image size.
Source: Wang et al., DETR3D, CoRL 2021, section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camera3d.ops.constants import constant

MIN_DEPTH_M = 1e-5


def project(
    reference_BQ3: Tensor,
    lidar2img_BN44: Tensor,
    point_cloud_range: Sequence[float],
    image_hw: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Points (B, Q, N, 2), x then y in [0, 1] of the image, zero where not visible; visible (B, Q, N) bool.

    Args:
        reference_BQ3: in [0, 1] of the point-cloud range.
        lidar2img_BN44: of the images before padding; padding at the bottom and on the right moves no pixel.
        point_cloud_range: x, y, z minimum, then maximum, in metres.
        image_hw: size of the images as the network sees them, padding included: the maps cover all of it.
    """
    # Pixels need float32: under autocast a product would be rounded to whole pixels.
    with torch.autocast(reference_BQ3.device.type, enabled=False):
        reference, lidar2img = reference_BQ3.float(), lidar2img_BN44.float()
        low, high = constant(point_cloud_range, reference).view(2, 3)
        metres = low + reference * (high - low)
        homogeneous = torch.cat((metres, torch.ones_like(metres[..., :1])), dim=-1)
        x, y, depth, _ = torch.einsum("bnij,bqj->bqni", lidar2img, homogeneous).unbind(-1)
        distance = depth.clamp(min=MIN_DEPTH_M)
        points = torch.stack((x / distance / image_hw[1], y / distance / image_hw[0]), dim=-1)
        inside = ((points > 0) & (points < 1)).all(-1)
        visible = (depth > MIN_DEPTH_M) & inside
        return points.where(visible[..., None], 0), visible
