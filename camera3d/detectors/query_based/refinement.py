"""Box refinement: a layer's box is its offset added, in logit space, to the point it looked around.

Shapes: B batch, Q object queries.
Source: Zhu et al., Deformable DETR, ICLR 2021, iterative box refinement, in 3D.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camera3d.ops.constants import constant

# Places of the centre in the 10 numbers of the official box encoding, see camera3d.boxes.
CENTER_XYZ = (0, 1, 4)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """logit(x) with x and 1 - x clamped from below, as Deformable DETR does."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def refine(offset_BQ10: Tensor, reference_BQ3: Tensor) -> tuple[Tensor, Tensor]:
    """What a box branch says about a reference point, as a box and as the next reference point.

    Args:
        offset_BQ10: of the box branch: the centre's offset in logit space, and the other seven numbers.
        reference_BQ3: in [0, 1] of the point-cloud range.

    Returns:
        (B, Q, 10), the official encoding with the centre in [0, 1] of the range, and that centre (B, Q, 3),
        detached: boxes carry gradient through their own layer's offset alone.
    """
    # Boxes in float32 under autocast too: a logit in half precision moves a centre by decimetres.
    offset = offset_BQ10.float()
    center = (
        offset[..., constant(CENTER_XYZ, offset, torch.long)] + inverse_sigmoid(reference_BQ3)
    ).sigmoid()
    x, y, z = center.unbind(-1)
    box = torch.cat((x[..., None], y[..., None], offset[..., 2:4], z[..., None], offset[..., 5:]), dim=-1)
    return box, center.detach()


def centres_to_metres(boxes_10: Tensor, point_cloud_range: Sequence[float]) -> Tensor:
    """Boxes (..., 10) with centres in [0, 1] to boxes with centres in metres of the LiDAR frame.

    Args:
        point_cloud_range: x, y, z minimum, then maximum, in metres.
    """
    low, high = point_cloud_range[:3], point_cloud_range[3:]
    scale, offset = [1.0] * 10, [0.0] * 10
    for axis, place in enumerate(CENTER_XYZ):
        scale[place], offset[place] = high[axis] - low[axis], low[axis]
    return boxes_10 * constant(scale, boxes_10) + constant(offset, boxes_10)
