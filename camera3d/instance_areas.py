"""Where the instances are: boxes as areas on the BEV map and on the maps of every camera.

Shapes: n boxes, Q object queries, K classes, N cameras, H W map height and width, S segments of a hull.

Both stages ask the same question: which cells a store must keep, and which cells a distillation loss looks
at. A cell belongs to an area when its centre does. Boxes are (n, 7 or more) in our convention
(camera3d.boxes): gravity centre x, y, z, l, w, h in metres, right-handed yaw in radians, LiDAR frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from camera3d.errors import ShapeMismatch
from camera3d.ops.constants import constant

# Corner i of a box lies on the far side of axis 0, 1, 2 where bit 2, 1, 0 of i is set; an edge flips one bit.
_EDGES = [(i, j) for i, j in combinations(range(8), 2) if (i ^ j) in (1, 2, 4)]
# Where the near plane cuts some of the 12 edges, the cut is a convex polygon with its corners on them.
_CUT_PAIRS = list(combinations(range(12), 2))


def query_confidence(logits: Tensor, *, min_score: float = 0.1, at_most: int = 300) -> Tensor:
    """(..., Q): the score of each query's best class, and zero where the query is not confident.

    Args:
        logits: (..., Q, K), before the sigmoid.
        min_score: scores below this one count as background.
        at_most: how many queries of a sample are kept, the best ones.
    """
    score = logits.sigmoid().amax(-1)
    best = score.topk(min(at_most, score.shape[-1]), dim=-1).indices
    kept = torch.zeros_like(score, dtype=torch.bool).scatter_(-1, best, True) & (score >= min_score)
    return score * kept


@torch.no_grad()
def bev_area(
    boxes: Tensor,
    *,
    map_hw: tuple[int, int],
    xy_range_m: tuple[float, float, float, float],
    margin_m: float = 0.5,
) -> Tensor:
    """(H, W) bool: the rotated footprints of all boxes, H along y and W along x, both ascending.

    No side counts as shorter than a cell: on a coarse map a person would fall between the cells' centres.

    Args:
        boxes: (n, 7 or more); n may be 0.
        xy_range_m: lowest x and y, highest x and y that the map covers.
        margin_m: by how many metres each side of a footprint is pushed out, along the box's own axes.

    Raises:
        ShapeMismatch: boxes are not (n, 7 or more).
    """
    _check_boxes(boxes)
    height, width = map_hw
    boxes = boxes.float()
    low, high = constant(xy_range_m, boxes).view(2, 2)
    cell_m = (high - low) / constant((width, height), boxes)
    x_m = low[0] + (torch.arange(width, device=boxes.device) + 0.5) * cell_m[0]
    y_m = low[1] + (torch.arange(height, device=boxes.device) + 0.5) * cell_m[1]

    right_nW, up_nH = x_m - boxes[:, :1], y_m - boxes[:, 1:2]
    cos, sin = boxes[:, 6:7].cos(), boxes[:, 6:7].sin()
    half = (boxes[:, 3:5] / 2 + margin_m).clamp(min=cell_m.amax() / 2)
    ahead = (cos * right_nW)[:, None, :] + (sin * up_nH)[:, :, None]
    aside = (-sin * right_nW)[:, None, :] + (cos * up_nH)[:, :, None]
    inside = (ahead.abs() <= half[:, 0, None, None]) & (aside.abs() <= half[:, 1, None, None])
    return inside.any(0)


@torch.no_grad()
def pv_areas(
    boxes: Tensor,
    *,
    lidar2img: Tensor,
    map_hws: Sequence[tuple[int, int]],
    strides: Sequence[float],
    margin_cells: float = 1.0,
    near_m: float = 0.1,
) -> list[Tensor]:
    """For each level (N, H, W) bool: the convex hulls of all projected boxes on every camera.

    What lies nearer to a camera than `near_m`, or behind it, is cut off before the projection.

    Args:
        boxes: (n, 7 or more); n may be 0.
        lidar2img: (N, 4, 4), LiDAR metres to (u·depth, v·depth, depth, 1) in pixels of the network's input.
        map_hws: height and width of each level.
        strides: input pixels a cell of each level; the centre of cell i lies at pixel (i + 0.5) · stride.
        margin_cells: by how many cells a hull is pushed out along both image axes (Minkowski sum with a
            square of twice that side).

    Raises:
        ShapeMismatch: boxes are not (n, 7 or more), lidar2img is not (N, 4, 4), or there is not one stride a
            level.
    """
    _check_boxes(boxes)
    if lidar2img.dim() != 3 or lidar2img.shape[1:] != (4, 4) or len(map_hws) != len(strides):
        raise ShapeMismatch(
            "pv_areas: expected lidar2img (N, 4, 4) and one stride a level, got"
            f" {tuple(lidar2img.shape)}, {len(map_hws)} levels and {len(strides)} strides"
        )
    # Double precision: a corner cut at 0.1 m may lie a hundred thousand pixels away.
    corners = _corners(boxes.double())
    areas = [torch.zeros(len(lidar2img), *hw, dtype=torch.bool, device=boxes.device) for hw in map_hws]
    image_hw = [max(hw[i] * stride for hw, stride in zip(map_hws, strides, strict=True)) for i in (0, 1)]
    slack = margin_cells * max(strides)
    for camera, matrix in enumerate(lidar2img.to(corners)):
        segments = _outline_segments(corners @ matrix[:3, :3].T + matrix[:3, 3], near_m)
        segments = _touching(segments, image_hw, slack)
        for area, stride in zip(areas, strides, strict=True):
            area[camera] = _hull_cells(segments / stride - 0.5, area.shape[1:], margin_cells)
    return areas


def _check_boxes(boxes: Tensor) -> None:
    if boxes.dim() != 2 or boxes.shape[1] < 7:
        raise ShapeMismatch(f"boxes: expected (n, 7 or more), got {tuple(boxes.shape)}")


def _corners(boxes: Tensor) -> Tensor:
    """(n, 8, 3), in the order that `_EDGES` counts on."""
    signs = constant([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], boxes) - 0.5
    ahead, aside, above = (signs * boxes[:, None, 3:6]).unbind(-1)
    cos, sin = boxes[:, 6, None].cos(), boxes[:, 6, None].sin()
    turned = torch.stack((cos * ahead - sin * aside, sin * ahead + cos * aside, above), dim=-1)
    return turned + boxes[:, None, :3]


def _outline_segments(corners_n83: Tensor, near_m: float) -> Tensor:
    """(n, S, 2, 2): segments in the image, u then v, whose hull is that of the box in front of the camera.

    A silhouette consists of edges: the 12 of the box, shortened where the near plane cuts them, and those of
    the cut, of which all diagonals are taken because they do no harm. What is not there is NaN.

    Args:
        corners_n83: u·depth, v·depth, depth.
    """
    first, second = constant(_EDGES, corners_n83, torch.long).T
    start, end = corners_n83[:, first], corners_n83[:, second]
    before, after = start[..., 2:] >= near_m, end[..., 2:] >= near_m
    cut = before != after
    share = (near_m - start[..., 2:]) / torch.where(cut, end[..., 2:] - start[..., 2:], 1.0)
    crossing = torch.where(cut, start + share * (end - start), torch.nan)
    start = torch.where(before, start, torch.where(after, crossing, torch.nan))
    end = torch.where(after, end, torch.where(before, crossing, torch.nan))
    segments = torch.stack((start, end), dim=2)
    if cut.any():
        diagonals = crossing[:, constant(_CUT_PAIRS, crossing, torch.long)]
        segments = torch.cat((segments, diagonals), dim=1)
    return segments[..., :2] / segments[..., 2:]


def _touching(segments: Tensor, image_hw: Sequence[float], slack: float) -> Tensor:
    """Those of the boxes (first dimension) whose bounding rectangle reaches into the image."""
    low = segments.nan_to_num(nan=torch.inf).amin((1, 2))
    high = segments.nan_to_num(nan=-torch.inf).amax((1, 2))
    height, width = image_hw
    size = constant((width + slack, height + slack), segments)
    return segments[((high >= -slack) & (low <= size)).all(-1)]


def _hull_cells(segments: Tensor, map_hw: Sequence[int], margin: float) -> Tensor:
    """(H, W) bool: cells within `margin` of one of the n hulls; cell centres lie at whole numbers.

    No hull is built. Row y of a hull pushed out by the margin is one interval: the extent in x of the hull's
    part between y - margin and y + margin, and a bit more on either side. The corners of that part lie where
    a segment crosses one of these two lines, or are ends of segments between them.
    """
    height, width = map_hw
    if not len(segments):
        return torch.zeros(height, width, dtype=torch.bool, device=segments.device)
    row = torch.arange(height, dtype=segments.dtype, device=segments.device)
    start, end = segments[:, :, 0, :, None], segments[:, :, 1, :, None]
    left, right = [], []
    for line in (row - margin, row + margin):
        rise = end[:, :, 1] - start[:, :, 1]
        share = (line - start[:, :, 1]) / torch.where(rise == 0, torch.nan, rise)
        x = start[:, :, 0] + share * (end[:, :, 0] - start[:, :, 0])
        _extend(left, right, x, (share >= 0) & (share <= 1))
    for tip in (start, end):
        x = tip[:, :, 0].expand(-1, -1, height)
        _extend(left, right, x, (tip[:, :, 1] - row).abs() <= margin)
    left_nH = torch.stack(left).amin(0) - margin
    right_nH = torch.stack(right).amax(0) + margin
    column = torch.arange(width, dtype=segments.dtype, device=segments.device)
    inside = (column >= left_nH[:, :, None]) & (column <= right_nH[:, :, None])
    return inside.any(0)


def _extend(left: list[Tensor], right: list[Tensor], x_nSH: Tensor, there: Tensor) -> None:
    """Append the smallest and the largest x over the segments, of those that are there."""
    left.append(torch.where(there, x_nSH, torch.inf).amin(1))
    right.append(torch.where(there, x_nSH, -torch.inf).amax(1))
