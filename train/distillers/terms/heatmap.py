"""The terms of the released HeatmapDistiller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from torch import Tensor, nn

from train.distillers.compared import LevelPair
from train.distillers.step import DistillationStep
from train.distillers.terms.term import Needs, Term, TermContext
from train.losses import ChannelWiseDivergence, HeatmapL2


class PvDivergence(Term):
    """Channel-wise divergence on every compared image level."""

    needs = Needs(image_maps=True, whole_maps=True)

    def __init__(self, *, levels: Sequence[LevelPair], tau: float = 2.0, weight: float = 0.25) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.divergence = ChannelWiseDivergence(tau=tau, weight=weight)

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """See Term."""
        return cls(levels=context.maps.levels, **options)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """See Term."""
        return {
            f"loss_pv_divergence_{level.number}": self.divergence(
                step.student[level.student.name], step.teacher.map(level.teacher.name), seen
            )
            for level, seen in zip(self.levels, step.pv_seen, strict=True)
        }


class BevHeatmap(Term):
    """L2 of the BEV maps under the ground-truth heatmap.

    Args:
        restore: lifts the student's BEV map to the teacher's size.
    """

    needs = Needs(bev_map=True, heatmap=True)
    BEV_MAPS = ("restored",)

    def __init__(self, *, restore: nn.Module, weight: float = 0.1) -> None:
        super().__init__()
        self.restore, self.distance = restore, HeatmapL2(weight=weight)

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """See Term."""
        return cls(restore=context.maps.bev.restoring_layers(), **options)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """See Term."""
        restored = self.restore(step.student_bev)
        return {"loss_bev_heatmap": self.distance(restored, step.teacher_bev, step.heatmap)}
