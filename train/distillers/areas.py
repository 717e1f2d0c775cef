"""Where the losses of a step look: instance areas on BEV and image maps, and the ground-truth heatmap.

Shapes: B batch, N cameras, H W cells of the BEV map, h w cells of an image level, n boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from camera3d.instance_areas import bev_area, pv_areas
from train.distillers.compared import BevPair, LevelPair
from train.losses import gaussian_heatmap, resize_heatmap


@dataclass(frozen=True, kw_only=True)
class AreaOptions:
    """What counts as an instance. docs/decisions/0004 has the reasons.

    Attributes:
        ground_truth, queries: whether annotated boxes and what the teacher detected make areas.
        min_score: from which on a detection or a query of the teacher counts.
        at_most: of a sample, the best ones.
        bev_margin_m: by how many metres a footprint is pushed out. In metres, because a cell of a coarse map
            may be larger than a car.
        pv_margin_cells: by how many cells of an image level a silhouette is pushed out.
    """

    ground_truth: bool = True
    queries: bool = True
    min_score: float = 0.1
    at_most: int = 300
    bev_margin_m: float = 0.5
    pv_margin_cells: float = 1.0


def instance_boxes(
    ground_truth: Sequence[Tensor], detected: Sequence[Tensor] | None, options: AreaOptions
) -> list[Tensor]:
    """For each sample the (n, 7) boxes whose areas count, ground truth first.

    Args:
        ground_truth: for each sample (n, 9) in our convention.
        detected: likewise, what the teacher is sure of; None when that makes no areas.
    """
    boxes = [truth[:, :7] if options.ground_truth else truth[:0, :7] for truth in ground_truth]
    if detected is None:
        return boxes
    return [torch.cat((own, found[:, :7].to(own))) for own, found in zip(boxes, detected, strict=True)]


def bev_areas(boxes: Sequence[Tensor], map_hw: tuple[int, int], bev: BevPair, options: AreaOptions) -> Tensor:
    """(B, H, W) bool on a BEV map of `map_hw` cells."""
    return torch.stack(
        [
            bev_area(own, map_hw=map_hw, xy_range_m=bev.xy_range_m, margin_m=options.bev_margin_m)
            for own in boxes
        ]
    )


def image_areas(
    boxes: Sequence[Tensor], lidar2img: Tensor, levels: Sequence[LevelPair], options: AreaOptions
) -> list[Tensor]:
    """For each level (B, N, h, w) bool; lidar2img (B, N, 4, 4) of the student's input."""
    per_sample = [
        pv_areas(
            own,
            lidar2img=matrices,
            map_hws=[level.student.shape[-2:] for level in levels],
            strides=[level.student.stride for level in levels],
            margin_cells=options.pv_margin_cells,
        )
        for own, matrices in zip(boxes, lidar2img, strict=True)
    ]
    return [torch.stack(level) for level in zip(*per_sample, strict=True)]


def heatmaps(ground_truth: Sequence[Tensor], bev: BevPair) -> Tensor:
    """(B, H, W) of the annotated boxes on the teacher's BEV map, see `resize_heatmap`."""
    drawn = [gaussian_heatmap(boxes, xy_range_m=bev.xy_range_m) for boxes in ground_truth]
    return resize_heatmap(torch.stack(drawn), bev.teacher.shape[-2:])
