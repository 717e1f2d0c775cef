"""The detection losses of all tasks and the depth loss.

Shapes: B batch, N cameras, D depth bins, h w cells of the image map, Y X BEV cells, n boxes.
Source: Yin et al., CenterPoint, CVPR 2021; Li et al., BEVDepth, AAAI 2023, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from camera3d.detectors.bevdepth.head import BRANCHES, HEATMAP
from camera3d.detectors.bevdepth.targets import TaskTargets
from camera3d.errors import ConfigInvalid

CODE_NUMBERS = sum(BRANCHES.values())
VELOCITY = slice(8, 10)
UNKNOWN = ("ignore", "keep")


class BEVDepthCriterion(nn.Module):
    """Losses of the heads' maps and of the depth distribution.

    Args:
        velocity_weight: factor on the two velocities, next to 1 on the other box numbers. The official
            experiments with two key frames mean 1, but spelt it so that 0.5 was used.
        bbox_weight, depth_weight: of the box loss and of the depth loss; a depth weight of 0 needs no LiDAR.
        unknown_velocity: `ignore` leaves velocities that are not finite out of the loss; `keep` computes with
            them, and the loss is not finite either.
    """

    def __init__(
        self,
        *,
        velocity_weight: float = 1.0,
        bbox_weight: float = 0.25,
        depth_weight: float = 3.0,
        unknown_velocity: str = "ignore",
    ) -> None:
        super().__init__()
        if unknown_velocity not in UNKNOWN:
            raise ConfigInvalid(
                f"criterion.unknown_velocity: expected one of {', '.join(UNKNOWN)}, got {unknown_velocity!r}"
            )
        self.bbox_weight, self.depth_weight = bbox_weight, depth_weight
        self.unknown_velocity = unknown_velocity
        self.code_weights = (1.0,) * VELOCITY.start + (velocity_weight,) * 2

    def task_losses(self, maps: Mapping[str, Tensor], targets: Sequence[TaskTargets]) -> dict[str, Tensor]:
        """`loss_heatmap` and `loss_bbox` of one task.

        Args:
            maps: of the task by branch, (B, numbers, Y, X), the heatmap before the sigmoid.
            targets: one a sample.
        """
        wanted = torch.stack([target.heatmap for target in targets])
        centres = reduce_mean((wanted == 1).float().sum()).clamp(min=1)
        heat = gaussian_focal(maps[HEATMAP].float(), wanted).sum() / centres

        codes = torch.cat([maps[branch].float() for branch in BRANCHES], dim=1).flatten(2)
        found = torch.cat([values[:, target.cells].T for values, target in zip(codes, targets, strict=True)])
        expected = torch.cat([target.codes for target in targets])
        boxes = reduce_mean(expected.new_tensor(float(len(expected)))).clamp(min=1e-4)
        weights = expected.new_tensor(self.code_weights).expand_as(expected)
        if self.unknown_velocity == "ignore":
            known = expected.isfinite()
            weights, expected = weights * known, expected.where(known, 0)
        distance = ((found - expected).abs() * weights).sum() / boxes
        # Without a box no cell was looked at: the branches take part in every step all the same.
        return {"loss_heatmap": heat, "loss_bbox": distance * self.bbox_weight + codes.sum() * 0}

    def depth_loss(self, probability_BNDhw: Tensor, bins_BNhw: Tensor) -> Tensor:
        """Cross entropy of every bin for itself, over the blocks that have a target (bin ≥ 0)."""
        with torch.autocast(probability_BNDhw.device.type, enabled=False):
            there = bins_BNhw >= 0
            numbers = torch.arange(probability_BNDhw.shape[2], device=bins_BNhw.device).view(1, 1, -1, 1, 1)
            wanted = (bins_BNhw[:, :, None] == numbers).float()
            entropy = F.binary_cross_entropy(probability_BNDhw.float(), wanted, reduction="none").sum(2)
            return self.depth_weight * (entropy * there).sum() / there.sum().clamp(min=1)


def gaussian_focal(logits: Tensor, heatmap: Tensor) -> Tensor:
    """The focal loss of every cell, α 2 and γ 4: cells near a centre count less as background."""
    score = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = -score.log() * (1 - score) ** 2 * (heatmap == 1)
    return centre - (1 - score).log() * score**2 * (1 - heatmap) ** 4
