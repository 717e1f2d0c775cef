"""The detection loss: Hungarian assignment and, for every decoder layer, focal loss and L1 loss.

Shapes: L decoder layers, B batch, Q object queries, n ground-truth boxes of a sample.
Source: Carion et al., DETR, ECCV 2020 (set prediction), with the costs and weights that the official 3D
detectors agree on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses import FocalLoss
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost, FocalLossCost
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from camera3d.boxes import encode_official
from camera3d.detectors.protocol import GroundTruth

# Velocities are regressed but do not take part in the assignment.
MATCHED_NUMBERS = 8


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
        self.bbox_weight = bbox_weight
        self.match_costs = (FocalLossCost(weight=cls_weight), OfficialBoxL1Cost(weight=bbox_weight))

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
        wanted_boxes = torch.cat([gt.boxes for gt in encoded])
        wanted_labels = torch.cat([gt.labels for gt in encoded])
        sample_LP, query_LP, truth_LP = self.match(logits_BLQK, boxes_BLQ10, encoded)
        # Averaged over the ranks, so that a GPU with few objects does not weigh them more.
        matched = wanted_boxes.new_full((), sample_LP.shape[1], dtype=torch.float32)
        num_positive = reduce_mean(matched).clamp(min=1)

        losses: dict[str, Tensor] = {}
        num_layers = logits_BLQK.shape[1]
        for layer in range(num_layers):
            logits_BQK = logits_BLQK[:, layer]
            sample, query, truth = sample_LP[layer], query_LP[layer], truth_LP[layer]
            labels = logits_BQK.new_full(logits_BQK.shape[:2], self.num_classes, dtype=torch.long)
            labels = labels.index_put((sample, query), wanted_labels[truth])
            # One-hot: mmdet then needs no compiled operator, which mmcv has on a GPU only when built for it.
            one_hot = F.one_hot(labels.flatten(), self.num_classes + 1)[:, : self.num_classes]
            predicted, wanted = boxes_BLQ10[sample, layer, query], wanted_boxes[truth]
            prefix = "" if layer == num_layers - 1 else f"d{layer}."
            losses[prefix + "loss_cls"] = self.loss_cls(
                logits_BQK.flatten(0, 1), one_hot, avg_factor=num_positive
            )
            losses[prefix + "loss_bbox"] = self._box_loss(predicted, wanted, code_weights) / num_positive
        return losses

    @torch.no_grad()
    def match(
        self, logits_BLQK: Tensor, boxes_BLQ10: Tensor, encoded: Sequence[GroundTruth]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(L, P) int64 each: sample, query and ground truth of every pair, by sample and query.

        Ground truths are counted through the batch. A GPU's host waits once: the costs of all layers and
        samples come over together, and the pairs go back together.

        Numbers that are not finite cost much instead of stopping the training: a prediction after one step
        too far in half precision, a box without a width.

        Args:
            encoded: boxes (n, 10) of each sample, in the official encoding.
        """
        _, L, Q = logits_BLQK.shape[:3]
        costs = []
        for logits_LQK, boxes_LQ10, gt in zip(logits_BLQK, boxes_BLQ10, encoded, strict=True):
            predicted = InstanceData(
                scores=_finite(logits_LQK.flatten(0, 1)), bboxes=_finite(boxes_LQ10.flatten(0, 1))
            )
            wanted = InstanceData(labels=gt.labels, bboxes=_finite(gt.boxes))
            costs.append(sum(cost(predicted, wanted) for cost in self.match_costs).flatten())
        sizes = [L * Q * len(gt.labels) for gt in encoded]
        on_host = torch.cat(costs).cpu().split(sizes)

        pairs, first = [np.empty((3, L, 0), dtype=np.int64)], 0
        for b, (cost, gt) in enumerate(zip(on_host, encoded, strict=True)):
            cost_LQn = cost.view(L, Q, len(gt.labels)).numpy()
            found = np.array([linear_sum_assignment(cost_Qn) for cost_Qn in cost_LQn]).swapaxes(0, 1)
            pairs.append(np.stack((np.full_like(found[0], b), found[0], found[1] + first)))
            first += len(gt.labels)
        return tuple(torch.from_numpy(np.concatenate(pairs, axis=-1)).to(logits_BLQK.device))

    def _box_loss(self, predicted_P10: Tensor, wanted_P10: Tensor, code_weights: Tensor) -> Tensor:
        """The sum over pairs and numbers. A box without a velocity or a true size teaches nothing."""
        finite_P1 = wanted_P10.isfinite().all(-1, keepdim=True)
        distance = (predicted_P10 - wanted_P10.where(finite_P1, predicted_P10.detach())).abs()
        return (distance * code_weights * finite_P1).sum() * self.bbox_weight


def _finite(numbers: Tensor) -> Tensor:
    return numbers.nan_to_num(nan=100.0, posinf=100.0, neginf=-100.0)
