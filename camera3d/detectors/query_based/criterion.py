"""The detection loss: Hungarian assignment and, for every decoder layer, focal loss and L1 loss.

Shapes: L decoder layers, B batch, Q object queries, n ground-truth boxes of a sample.
Source: Carion et al., DETR, ECCV 2020 (set prediction), with the costs and weights that the official 3D
detectors agree on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss, L1Loss
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost
from mmdet.utils import reduce_mean
from mmdet3d.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor, nn

from camera3d.boxes import encode_official
from camera3d.detectors.protocol import GroundTruth

# Velocities are regressed but do not take part in the assignment.
MATCHED_NUMBERS = 8


@TASK_UTILS.register_module()
class OfficialBoxL1Cost(BaseMatchCost):
    """L1 distance of the first eight numbers of the official box encoding."""

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: dict | None = None, **kwargs
    ) -> Tensor:
        """(Q, n) cost; both `bboxes` are encoded already."""
        predicted = pred_instances.bboxes[:, :MATCHED_NUMBERS]
        wanted = gt_instances.bboxes[:, :MATCHED_NUMBERS]
        return torch.cdist(predicted, wanted, p=1) * self.weight


class SetCriterion(nn.Module):
    """Losses of all decoder layers.

    Args:
        num_classes: number of foreground classes; background has no logit.
        cls_weight: of the focal loss (γ 2, α 0.25) and of its matching cost.
        bbox_weight: of the L1 loss and of its matching cost.
    """

    def __init__(self, *, num_classes: int, cls_weight: float = 2.0, bbox_weight: float = 0.25) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss_cls = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=cls_weight)
        self.loss_bbox = L1Loss(loss_weight=bbox_weight)
        self.assigner = HungarianAssigner(
            match_costs=[
                {"type": "mmdet.FocalLossCost", "weight": cls_weight},
                {"type": "mmdet3d.OfficialBoxL1Cost", "weight": bbox_weight},
            ]
        )

    def forward(
        self,
        logits_BLQK: Tensor,
        boxes_BLQ10: Tensor,
        ground_truth: Sequence[GroundTruth],
        code_weights: Tensor,
    ) -> dict[str, Tensor]:
        """`loss_cls` and `loss_bbox` of the last layer, `d0.loss_cls` … of the others.

        Args:
            logits_BLQK: before the sigmoid.
            boxes_BLQ10: in the official encoding, see camera3d.boxes.
            code_weights: factor on each of the 10 box numbers.
        """
        encoded = [GroundTruth(encode_official(gt.boxes), gt.labels) for gt in ground_truth]
        losses: dict[str, Tensor] = {}
        num_layers = logits_BLQK.shape[1]
        for layer in range(num_layers):
            prefix = "" if layer == num_layers - 1 else f"d{layer}."
            logits, boxes = logits_BLQK[:, layer], boxes_BLQ10[:, layer]
            loss_cls, loss_bbox = self._layer_loss(logits, boxes, encoded, code_weights)
            losses[prefix + "loss_cls"] = loss_cls
            losses[prefix + "loss_bbox"] = loss_bbox
        return losses

    @torch.no_grad()
    def assign(self, logits_QK: Tensor, boxes_Q10: Tensor, encoded: GroundTruth) -> Tensor:
        """(Q,) int64: 0 for background, i for ground truth i - 1. `encoded.boxes` are (n, 10).

        Numbers that are not finite cost much instead of stopping the training: a prediction after one step
        too far in half precision, a box without a width.
        """
        result = self.assigner.assign(
            InstanceData(scores=_finite(logits_QK), bboxes=_finite(boxes_Q10)),
            InstanceData(labels=encoded.labels, bboxes=_finite(encoded.boxes)),
        )
        return result.gt_inds

    def _layer_loss(
        self, logits_BQK: Tensor, boxes_BQ10: Tensor, encoded: list[GroundTruth], code_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        labels = logits_BQK.new_full(logits_BQK.shape[:2], self.num_classes, dtype=torch.long)
        matched, wanted = [], []
        for b, gt in enumerate(encoded):
            assigned = self.assign(logits_BQK[b], boxes_BQ10[b], gt)
            positive = assigned.nonzero().squeeze(-1)
            target = assigned[positive] - 1
            labels[b, positive] = gt.labels[target]
            matched.append(boxes_BQ10[b, positive])
            wanted.append(gt.boxes[target])
        predicted, target_boxes = torch.cat(matched), torch.cat(wanted)

        # Averaged over the ranks, so that a GPU with few objects does not weigh them more.
        num_positive = reduce_mean(predicted.new_tensor([float(len(predicted))])).clamp(min=1).item()
        # One-hot: mmdet then needs no compiled operator, which mmcv has on a GPU only when built for it.
        one_hot = F.one_hot(labels.flatten(), self.num_classes + 1)[:, : self.num_classes]
        loss_cls = self.loss_cls(logits_BQK.flatten(0, 1), one_hot, avg_factor=num_positive)
        # A box without a measured velocity or with a broken size teaches nothing.
        finite = target_boxes.isfinite().all(-1)
        weights = code_weights.expand(int(finite.sum()), -1)
        loss_bbox = self.loss_bbox(predicted[finite], target_boxes[finite], weights, avg_factor=num_positive)
        return loss_cls, loss_bbox


def _finite(numbers: Tensor) -> Tensor:
    return numbers.nan_to_num(nan=100.0, posinf=100.0, neginf=-100.0)
