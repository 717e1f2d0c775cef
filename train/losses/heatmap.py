"""The heatmap of the ground truth on the BEV map: a Gaussian bump on every box centre.

Shapes: n boxes, H W map height (along y) and width (along x).
Source: Zhou et al., Objects as Points, 2019 (arXiv 1904.07850), section 4, and Yin et al., CenterPoint, CVPR
2021: the spread is a sixth of the bump's diameter, and the radius follows from how far a box may move before
its overlap with itself falls under a limit.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from train.losses.checks import ShapeMismatch


def gaussian_radius(length: Tensor, width: Tensor, min_overlap: float) -> Tensor:
    """The radius of the bump of boxes `length` × `width` (n,), in cells, as the reference code has it.

    Three ways for two boxes to overlap by `min_overlap` (moved apart, shrunk, grown) give a quadratic
    a r² - b r + c = 0 each, in its variables; the smallest answer counts. The CornerNet code divides the root
    by 2 where it should divide by 2a, and CenterPoint and the released HeatmapDistiller inherited it: kept,
    because the golden heatmap holds it.
    """
    around, area = length + width, length * width
    roots = []
    for a, b, c in (
        (1.0, around, area * (1 - min_overlap) / (1 + min_overlap)),
        (4.0, 2 * around, area * (1 - min_overlap)),
        (4 * min_overlap, -2 * min_overlap * around, area * (min_overlap - 1)),
    ):
        roots.append((b + (b * b - 4 * a * c).sqrt()) / 2)
    return torch.stack(roots).amin(0)


@torch.no_grad()
def gaussian_heatmap(
    boxes: Tensor,
    *,
    xy_range_m: tuple[float, float, float, float],
    map_hw: tuple[int, int] = (128, 128),
    min_overlap: float = 0.1,
    min_radius: int = 2,
) -> Tensor:
    """(H, W) float32 in [0, 1]: the largest bump at every cell, 1 at the cell of a box centre.

    Boxes with a centre outside the range, or without extent, leave no bump.

    Args:
        boxes: (n, 5 or more): x, y, z, l, w in metres, LiDAR frame; n may be 0.
        xy_range_m: lowest x and y, highest x and y that the map covers.

    Raises:
        ShapeMismatch: boxes are not (n, 5 or more).
    """
    if boxes.dim() != 2 or boxes.shape[1] < 5:
        raise ShapeMismatch(f"gaussian_heatmap: boxes: expected (n, 5 or more), got {tuple(boxes.shape)}")
    height, width = map_hw
    # Double precision: the radius is rounded down, and a rounding error of float32 could cost a whole cell.
    boxes = boxes.double()
    low, high = boxes.new_tensor(xy_range_m).view(2, 2)
    cell_m = (high - low) / boxes.new_tensor((width, height))
    center = ((boxes[:, :2] - low) / cell_m).floor()
    # The radius is the same in every direction: the yaw plays no part, nor does which side is which.
    length, box_width = boxes[:, 3] / cell_m[0], boxes[:, 4] / cell_m[1]
    inside = (center >= 0).all(-1) & (center < boxes.new_tensor((width, height))).all(-1)
    kept = inside & (length > 0) & (box_width > 0)
    if not kept.any():
        return torch.zeros(map_hw, device=boxes.device)

    center = center[kept]
    radius = gaussian_radius(length[kept], box_width[kept], min_overlap).floor().clamp(min=min_radius)
    across = _bump(center[:, 0], radius, width)
    along = _bump(center[:, 1], radius, height)
    return (along[:, :, None] * across[:, None, :]).amax(0).float()


def resize_heatmap(heatmap_BHW: Tensor, map_hw: tuple[int, int]) -> Tensor:
    """The heatmap (B, H, W) on a map of another size.

    On a finer map every cell takes its nearest value, as in the reference. On a coarser one that would pick
    one cell in many and lose most peaks: a cell takes the largest value that lies in it.
    """
    heatmap_B1HW = heatmap_BHW[:, None]
    if map_hw[0] < heatmap_BHW.shape[-2] or map_hw[1] < heatmap_BHW.shape[-1]:
        return F.adaptive_max_pool2d(heatmap_B1HW, map_hw)[:, 0]
    return F.interpolate(heatmap_B1HW, size=map_hw, mode="nearest")[:, 0]


def _bump(center: Tensor, radius: Tensor, cells: int) -> Tensor:
    """(n, cells): one axis of the bumps. The support is a square, so the bump is the product of its axes."""
    distance = torch.arange(cells, dtype=center.dtype, device=center.device) - center[:, None]
    sigma = (2 * radius[:, None] + 1) / 6
    return torch.exp(-distance.square() / (2 * sigma.square())) * (distance.abs() <= radius[:, None])
