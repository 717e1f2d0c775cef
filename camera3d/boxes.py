"""Box conventions, and the only place that converts between them.

Boxes are of two kinds: 3D boxes in space, and 2D boxes (..., 4) on a picture: x1, y1, x2, y2 in its pixels.
Three conventions of 3D boxes meet here:

- *ours* (mmdet3d 1.x, LiDAR frame): gravity centre x, y, z, then l, w, h in metres, yaw right-handed in
  radians (0 along +x, counter-clockwise seen from above), then vx, vy in m/s. Arrays are (..., 9).
- *official encoding*, what the released checkpoints regress: cx, cy, log w, log l, cz, log h,
  sin yaw', cos yaw', vx, vy with the legacy yaw' = -yaw - π/2. Arrays are (..., 10).
- *legacy* (mmdet3d 0.17): x, y, z of the bottom centre, w, l, h, legacy yaw', vx, vy. Arrays are (..., 9).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BOX_CONVENTION = (
    "LiDAR frame, metres and radians; x, y, z of the gravity centre, l, w, h, right-handed yaw (0 along +x), "
    "vx, vy"
)
_QUERY_BOX_ENCODING = (
    "{} frame, metres and radians; cx, cy, log w, log l, cz, log h, sin, cos of the legacy yaw "
    "(-yaw - pi/2), vx, vy"
)


def query_box_encoding(frame: str) -> str:
    """What a store says about query boxes whose frame is "lidar" or "ego"."""
    return _QUERY_BOX_ENCODING.format({"lidar": "LiDAR"}.get(frame, frame))


QUERY_BOX_ENCODING = query_box_encoding("lidar")


@dataclass(frozen=True, kw_only=True)
class BoxKind:
    """What the boxes of a detector, a store or a dataset are.

    Attributes:
        name: for messages.
        numbers: of one box.
        convention: what these are: axes, units, order.
        query_encoding: likewise, of `query_boxes`.
    """

    name: str
    numbers: int
    convention: str
    query_encoding: str


BOXES_3D = BoxKind(name="3D boxes", numbers=9, convention=BOX_CONVENTION, query_encoding=QUERY_BOX_ENCODING)
BOXES_2D = BoxKind(
    name="2D boxes",
    numbers=4,
    convention="picture as it is in its file, pixels from its upper left corner; x1, y1, x2, y2",
    query_encoding="fractions of the picture's width and height; cx, cy, w, h",
)


def limit_period(angle_rad: Tensor) -> Tensor:
    """The same angle in [-π, π)."""
    return angle_rad - 2 * math.pi * torch.floor(angle_rad / (2 * math.pi) + 0.5)


def swap_yaw(yaw_rad: Tensor) -> Tensor:
    """Right-handed yaw to legacy yaw and back: the map -yaw - π/2 is its own inverse."""
    return limit_period(-yaw_rad - math.pi / 2)


def encode_official(boxes: Tensor) -> Tensor:
    """Ours (..., 9) to the official encoding (..., 10)."""
    x, y, z, length, width, height, yaw, vx, vy = boxes.unbind(-1)
    # Not wrapped: sine and cosine need no wrap, and its rounding would decide near ties of the assignment.
    legacy_yaw = -yaw - math.pi / 2
    return torch.stack(
        (x, y, width.log(), length.log(), z, height.log(), legacy_yaw.sin(), legacy_yaw.cos(), vx, vy), dim=-1
    )


def decode_official(encoded: Tensor) -> Tensor:
    """The official encoding (..., 10) to ours (..., 9)."""
    x, y, log_w, log_l, z, log_h, sin, cos, vx, vy = encoded.unbind(-1)
    yaw = swap_yaw(torch.atan2(sin, cos))
    return torch.stack((x, y, z, log_l.exp(), log_w.exp(), log_h.exp(), yaw, vx, vy), dim=-1)


def to_legacy(boxes: Tensor) -> Tensor:
    """Ours (..., 9) to legacy (..., 9): bottom centre, w before l, legacy yaw."""
    x, y, z, length, width, height, yaw, vx, vy = boxes.unbind(-1)
    return torch.stack((x, y, z - height / 2, width, length, height, swap_yaw(yaw), vx, vy), dim=-1)


def move_boxes(boxes: Tensor, transform: Tensor) -> Tensor:
    """Boxes (..., 9), or (..., 7) without velocities, of one frame as seen in another frame.

    A box keeps its faces upright: of its heading and velocity the part along the other frame's ground plane
    is kept, as frames of one vehicle are tilted against each other by a degree at most.

    Args:
        transform: (4, 4), the boxes' frame to the other one: rigid, or with a common factor on all lengths,
            or mirrored.
    """
    matrix = transform.to(device=boxes.device, dtype=torch.float64)
    linear, shift = matrix[:3, :3], matrix[:3, 3]
    exact = boxes.double()
    centre = exact[..., :3] @ linear.T + shift
    yaw = exact[..., 6]
    heading = torch.stack((yaw.cos(), yaw.sin()), dim=-1) @ linear[:2, :2].T
    velocity = [exact[..., 7:9] @ linear[:2, :2].T] if exact.shape[-1] == 9 else []
    turned = torch.atan2(heading[..., 1], heading[..., 0])
    size = exact[..., 3:6] * _factor(linear)
    return torch.cat((centre, size, turned[..., None], *velocity), dim=-1).to(boxes.dtype)


def move_encoded(encoded: Tensor, transform: Tensor) -> Tensor:
    """`move_boxes` for boxes (..., 10) in the official encoding; sine and cosine keep their length."""
    matrix = transform.to(device=encoded.device, dtype=torch.float64)
    linear, shift, exact = matrix[:3, :3], matrix[:3, 3], encoded.double()
    x, y, log_w, log_l, z, log_h, sin, cos, vx, vy = exact.unbind(-1)
    x, y, z = (torch.stack((x, y, z), dim=-1) @ linear.T + shift).unbind(-1)
    factor, ground = _factor(linear), linear[:2, :2].T
    # Of the legacy yaw, sine and cosine are the heading's x and y with their signs changed.
    sin, cos = (torch.stack((sin, cos), dim=-1) @ ground / factor).unbind(-1)
    vx, vy = (torch.stack((vx, vy), dim=-1) @ ground).unbind(-1)
    log_w, log_l, log_h = (size + factor.log() for size in (log_w, log_l, log_h))
    moved = torch.stack((x, y, log_w, log_l, z, log_h, sin, cos, vx, vy), dim=-1)
    return moved.to(encoded.dtype)


def _factor(linear_33: Tensor) -> Tensor:
    """What a map of space does to lengths. Written out: `det` would make a GPU's host wait."""
    volume = (linear_33[0] * torch.linalg.cross(linear_33[1], linear_33[2])).sum()
    return volume.abs() ** (1 / 3)
