"""Bring the previous frame's BEV map under the current ego pose: rotation of the map, shift of the reference.

Shapes: B batch, C channels, H W BEV map height (y) and width (x).
Source: Li et al., BEVFormer, ECCV 2022, section 3.4, with the rotation and shift of the official code; the
golden frames hold both to the released numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from camera3d.ops.constants import constant

# Places in the 18 CAN-bus numbers.
EGO_TRANSLATION = slice(0, 2)
EGO_YAW_RAD = -2
YAW_CHANGE_DEG = -1


def rotate_bev(bev_BCHW: Tensor, angle_deg: Tensor, center_xy: tuple[float, float]) -> Tensor:
    """Rotate each map about a point, counter-clockwise as drawn with y down, to the nearest neighbour.

    Args:
        bev_BCHW: (B, C, H, W).
        angle_deg: (B,), one angle a map.
        center_xy: in cells from the upper left corner of the map.

    The sampling grid is torchvision's for `rotate(..., NEAREST)`, which the checkpoints were trained with:
    with nearest neighbours half a cell of difference would show.
    """
    height, width = bev_BCHW.shape[-2:]
    radians = -torch.deg2rad(angle_deg.double())
    cos, sin = radians.cos(), radians.sin()
    x0, y0 = center_xy[0] - width / 2, center_xy[1] - height / 2
    theta = torch.stack(
        (
            torch.stack((cos, sin, x0 - cos * x0 - sin * y0), dim=-1),
            torch.stack((-sin, cos, y0 + sin * x0 - cos * y0), dim=-1),
        ),
        dim=-2,
    ).float()  # (B, 2, 3)

    ones = torch.ones(height, width, device=bev_BCHW.device)
    x = torch.arange(width, device=bev_BCHW.device) - (width - 1) / 2
    y = torch.arange(height, device=bev_BCHW.device) - (height - 1) / 2
    base = torch.stack((x.expand(height, width), y[:, None].expand(height, width), ones), dim=-1)
    half_size = constant([width / 2, height / 2], theta)
    grid = (base.view(1, -1, 3) @ (theta.transpose(1, 2) / half_size)).view(-1, height, width, 2)
    # Float32 whatever the map is: half precision would round positions by more than half a cell.
    turned = F.grid_sample(bev_BCHW.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return turned.to(bev_BCHW.dtype)


def ego_shift(can_bus: Tensor, bev_size_m: tuple[float, float]) -> Tensor:
    """How far the ego moved since the previous frame, as a fraction of the BEV map: (B, 2), x then y.

    Args:
        can_bus: (B, 18), the numbers relative to the previous frame.
        bev_size_m: extent of the map along y and x, in metres.

    The map's x axis is the LiDAR's, to the right of the ego; its y axis points ahead, so a straight drive
    shifts along y.
    """
    can_bus = can_bus.double()
    dx, dy = can_bus[:, EGO_TRANSLATION].unbind(-1)
    travelled_m = torch.hypot(dx, dy)
    # Degrees and back, as the official code goes: the golden numbers hold to the last bit of float32.
    heading_deg = torch.atan2(dy, dx) / math.pi * 180
    bev_angle = (can_bus[:, EGO_YAW_RAD] / math.pi * 180 - heading_deg) / 180 * math.pi
    shift_y = travelled_m * bev_angle.cos() / bev_size_m[0]
    shift_x = travelled_m * bev_angle.sin() / bev_size_m[1]
    return torch.stack((shift_x, shift_y), dim=-1).float()
