"""L2 between BEV maps under the ground-truth heatmap.

Shapes: B batch, C channels, H W BEV map height and width.
Source: the released HeatmapDistiller: both maps are multiplied by the heatmap, then subtracted and squared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.losses.checks import check_shapes, compute_dtype, zero_with_graph
from train.losses.regions import Regions, Stacked


class HeatmapL2(nn.Module):
    """Squared distance of two BEV maps where objects are.

    Args:
        weight: factor on the returned loss.
    """

    def __init__(self, *, weight: float = 0.1) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, student_BCHW: Tensor, teacher_BCHW: Tensor, heatmap_BHW: Regions) -> Tensor:
        """Scalar: Σ ((student - teacher) · heatmap)² / Σ heatmap of each sample, averaged over the samples.

        A sample with an empty heatmap counts as zero. Raises ShapeMismatch when shapes differ.
        """
        where, shape = Stacked.of(heatmap_BHW), tuple(student_BCHW.shape)
        check_shapes(
            "HeatmapL2",
            student=(student_BCHW, (None,) * 4),
            teacher=(teacher_BCHW, shape),
            heatmap=(where.weight, (*shape[:1], *shape[2:])),
        )
        dtype = compute_dtype(student_BCHW)
        # Only cells under the heatmap are touched: some 5 % of them on a crowded keyframe, and what a store
        # left out elsewhere cannot leak in.
        if not len(where.chosen):
            return zero_with_graph([student_BCHW])
        cells, height = where.places(), where.weight.to(dtype)
        total_B = height.sum((1, 2))
        share = height[cells].square() / total_B[where.sample]
        student = student_BCHW.permute(0, 2, 3, 1)[cells].to(dtype)
        teacher = teacher_BCHW.permute(0, 2, 3, 1)[cells].to(dtype)
        squared = (student - teacher).square().sum(-1)
        return torch.sum(squared * share) * (self.weight / len(student_BCHW))
