"""What the maps should be: heatmaps and box codes at the cells of the box centres, and depth bins.

Shapes: B batch, N cameras, K classes of a task, Y X BEV cells, n boxes of a sample, H W image, h w image map.
Source: Yin et al., CenterPoint, CVPR 2021, section 4.1; Li et al., BEVDepth, AAAI 2023, section 4.2 (depth).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camera3d.detectors.bevdepth.decode import BevGrid
from camera3d.detectors.protocol import GroundTruth

MIN_OVERLAP, MIN_RADIUS = 0.1, 2


@dataclass(frozen=True, kw_only=True)
class TaskTargets:
    """Of one task and sample.

    Attributes:
        heatmap: (K, Y, X) in [0, 1], 1 at the cell of a centre.
        cells: (n,) row · X + column of the boxes of the task's classes that lie in the grid.
        codes: (n, 10) offset from the cell (x, y, in cells), z, log of l, w, h, sine and cosine of the yaw,
            velocity.
    """

    heatmap: Tensor
    cells: Tensor
    codes: Tensor


@torch.no_grad()
def task_targets(
    truth: GroundTruth, class_range: range, grid: BevGrid, map_hw: tuple[int, int]
) -> TaskTargets:
    """The targets of a task.

    Args:
        truth: boxes in the frame of the BEV map.
        class_range: labels of the task.
    """
    height, width = map_hw
    # Class by class, in the order of the boxes.
    chosen = torch.cat([(truth.labels == label).nonzero()[:, 0] for label in class_range])
    boxes, labels = truth.boxes[chosen].float(), truth.labels[chosen] - class_range.start
    low, cell_m = boxes.new_tensor(grid.low_m), boxes.new_tensor(grid.cell_m)
    place = (boxes[:, :2] - low) / cell_m
    cell = place.int()
    extent = boxes[:, 3:5] / cell_m
    inside = ((cell >= 0) & (cell < cell.new_tensor([width, height]))).all(-1) & (extent > 0).all(-1)
    boxes, labels, place, cell = boxes[inside], labels[inside], place[inside], cell[inside]
    radius = gaussian_radius(*extent[inside].unbind(-1)).int().clamp(min=MIN_RADIUS)

    heatmap = boxes.new_zeros(len(class_range), height, width)
    for label, bump in zip(labels.tolist(), _bumps(cell, radius, map_hw), strict=True):
        heatmap[label] = torch.maximum(heatmap[label], bump)
    codes = (place - cell, boxes[:, 2:3], boxes[:, 3:6].log())
    codes += (boxes[:, 6:7].sin(), boxes[:, 6:7].cos(), boxes[:, 7:9])
    column, row = cell.long().unbind(-1)
    return TaskTargets(heatmap=heatmap, cells=row * width + column, codes=torch.cat(codes, dim=-1))


def gaussian_radius(length: Tensor, width: Tensor) -> Tensor:
    """(n,) in cells: how far a box may move before it overlaps with itself too little.

    The formulas of the reference code, whose roots lack the factor of the leading coefficient.
    """
    around, area, o = length + width, length * width, MIN_OVERLAP
    apart = (around + (around**2 - 4 * area * (1 - o) / (1 + o)).sqrt()) / 2
    shrunk = (2 * around + (4 * around**2 - 16 * (1 - o) * area).sqrt()) / 2
    grown = (-2 * o * around + (4 * o**2 * around**2 + 16 * o * (1 - o) * area).sqrt()) / 2
    return torch.minimum(torch.minimum(apart, shrunk), grown)


def depth_bins(depth_BNHW: Tensor, stride: int, bins_m: Sequence[float]) -> Tensor:
    """(B, N, h, w) int64: the bin of the nearest point in each block, -1 without one or out of the bins.

    Args:
        depth_BNHW: in metres, zero where no point is.
        bins_m: first bin, end and step.
    """
    first, end, step = bins_m
    B, N, H, W = depth_BNHW.shape
    blocks = depth_BNHW.view(B, N, H // stride, stride, W // stride, stride)
    nearest = blocks.masked_fill(blocks == 0, torch.inf).amin((3, 5))
    # The released code counts from one step before the first bin, and truncates.
    number = ((nearest - (first - step)) / step).clamp(-1, 1e6).int() - 1
    count = round((end - first) / step)
    return number.where((number >= 0) & (number < count), -1).long()


def _bumps(cell: Tensor, radius: Tensor, map_hw: tuple[int, int]) -> Tensor:
    """(n, Y, X): a Gaussian of each box, cut off at its radius; a sixth of the diameter is its spread."""
    height, width = map_hw
    x = torch.arange(width, device=cell.device) - cell[:, :1]
    y = torch.arange(height, device=cell.device) - cell[:, 1:]
    near = (x.abs() <= radius[:, None])[:, None, :] & (y.abs() <= radius[:, None])[:, :, None]
    spread = (2 * radius + 1).double() / 6
    squared = (x**2)[:, None, :] + (y**2)[:, :, None]
    bump = (-squared / (2 * spread**2)[:, None, None]).exp()
    least = torch.finfo(torch.float64).eps
    return bump.where(near & (bump >= least), 0).float()
