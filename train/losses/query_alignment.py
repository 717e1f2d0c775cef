"""The query term: logits and boxes, query by query.

Shapes: L decoder layers, B batch, Q object queries (n of all samples' confident), K classes.
The student's head starts from the teacher's, so that query q means the same in both and nothing need be
matched. Classes are compared as probabilities by the Kullback-Leibler divergence of K independent yes-or-no
questions; boxes by the L1 distance of the detection loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.checks import check_shapes, compute_dtype, zero_with_graph
from train.losses.regions import Regions, Stacked

# Centre x, y, log w, log l, z, log h, sin, cos count fully, the two velocities a fifth, as in the official
# detection losses.
CODE_WEIGHTS = (1.0,) * 8 + (0.2,) * 2


class QueryAlignment(nn.Module):
    """Pull the student's queries to the teacher's.

    Args:
        logit_weight, box_weight: factors on the two returned losses; the defaults are those of the detection
            loss.
        code_weights: factor on each of the box numbers.
    """

    def __init__(
        self,
        *,
        logit_weight: float = 2.0,
        box_weight: float = 0.25,
        code_weights: Sequence[float] = CODE_WEIGHTS,
    ) -> None:
        super().__init__()
        self.logit_weight, self.box_weight = logit_weight, box_weight
        self.register_buffer("code_weights", torch.tensor(code_weights), persistent=False)

    def forward(
        self,
        student_logits: Tensor,
        student_boxes: Tensor,
        teacher_logits: Tensor,
        teacher_boxes: Tensor,
        confidence_BQ: Regions,
    ) -> tuple[Tensor, Tensor]:
        """The scalar losses of logits and of boxes: sums over K and over the box numbers, mean over layers.

        Averaged over the queries by confidence and then over the samples; a sample without a confident query
        counts as zero.

        Args:
            student_logits, teacher_logits: (B, L, Q, K), before the sigmoid.
            student_boxes, teacher_boxes: (B, L, Q, 10) in the official encoding, centres in metres; or with
                as many numbers as there are code weights.
            confidence_BQ: weight ≥ 0 of each query.

        Raises ShapeMismatch when shapes do not fit together.
        """
        where, logit_shape = Stacked.of(confidence_BQ), tuple(student_logits.shape)
        box_shape = (*logit_shape[:3], len(self.code_weights))
        check_shapes(
            "QueryAlignment",
            student_logits=(student_logits, (None,) * 4),
            teacher_logits=(teacher_logits, logit_shape),
            student_boxes=(student_boxes, box_shape),
            teacher_boxes=(teacher_boxes, box_shape),
            confidence=(where.weight, (logit_shape[0], logit_shape[2])),
        )
        zero = zero_with_graph([student_logits, student_boxes])
        if not len(where.chosen) or not student_logits.shape[1]:
            return zero, zero
        dtype, chosen = compute_dtype(student_logits), where.places()
        confidence = where.weight.to(dtype)
        share_n = confidence[chosen] / (confidence.sum(-1)[where.sample] * len(confidence))

        def chosen_Ln(values_BLQ: Tensor) -> Tensor:
            return values_BLQ.transpose(0, 1)[:, *chosen].to(dtype)

        student, teacher = chosen_Ln(student_logits), chosen_Ln(teacher_logits)
        wanted = teacher.sigmoid()
        cross_entropy = F.binary_cross_entropy_with_logits(student, wanted, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(teacher, wanted, reduction="none")
        divergence_Ln = (cross_entropy - entropy).sum(-1)

        student, teacher = chosen_Ln(student_boxes), chosen_Ln(teacher_boxes)
        distance_Ln = ((student - teacher).abs() * self.code_weights.to(dtype)).sum(-1)
        return (
            self.logit_weight * (divergence_Ln * share_n).sum(-1).mean(),
            self.box_weight * (distance_Ln * share_n).sum(-1).mean(),
        )
