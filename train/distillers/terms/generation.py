"""FD3D's masked generation: hide a part of the instances, and make the teacher's map of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from train.distillers.compared import LevelPair
from train.distillers.step import DistillationStep
from train.distillers.terms.term import Needs, Term, TermContext
from train.losses import AreaL2, MaskedGeneration, MaskedGenerator
from train.losses.checks import zero_with_graph


class PvGeneration(Term):
    """Masked generation on every compared image level, with a generator each.

    Args:
        weight: of the mean over the levels; with reduction `sum` of each level, as in Masked Generative
            Distillation.
        reduction: over the cells of the areas, see AreaL2.
    """

    needs = Needs(image_maps=True, areas=True)

    def __init__(
        self,
        *,
        levels: Sequence[LevelPair],
        mask_ratio: float = 0.5,
        weight: float = 0.02,
        reduction: str = "mean",
        skip_empty: bool = True,
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.generations = nn.ModuleList(
            MaskedGeneration(
                generator=MaskedGenerator(channels=level.student.shape[1], mask_ratio=mask_ratio),
                distance=AreaL2(
                    weight=weight / len(self.levels) if reduction == "mean" else weight, reduction=reduction
                ),
                skip_empty=skip_empty,
            )
            for level in self.levels
        )

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """See Term."""
        return cls(levels=context.maps.levels, **options)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """See Term."""
        losses = {}
        for level, generation, area in zip(self.levels, self.generations, step.pv_areas, strict=True):
            own, wanted = step.student[level.student.name], step.teacher.map(level.teacher.name)
            losses[f"loss_pv_generation_{level.number}"], _ = generation(own, wanted, area)
        return losses


class BevGeneration(Term):
    """Distance of the student's BEV map to the teacher's over the instance areas.

    Args:
        bev_map: which map is compared. `generated`: what the generator made of the masked map, as the paper's
            figure has it. `raw`: the student's own map, enlarged bilinearly, so that no layer stands between
            the loss and the map that the head reads.
    """

    needs = Needs(bev_map=True, areas=True)
    BEV_MAPS = ("generated", "raw")

    def __init__(self, *, weight: float = 0.05, bev_map: str = "generated") -> None:
        super().__init__()
        self.bev_map, self.distance = bev_map, AreaL2(weight=weight)

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """See Term."""
        return cls(**options)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """See Term."""
        wanted, area = step.teacher_bev, step.bev_area
        if self.bev_map == "generated":
            student = step.generated_bev
        else:
            size = wanted.shape[-2:]
            student = F.interpolate(step.student_bev, size=size, mode="bilinear", align_corners=False)
        loss = self.distance(student[:, None], wanted[:, None], area)
        # Without an area the distance has met no cell: the generator takes part in every step all the same.
        return {"loss_bev_generation": loss + zero_with_graph([student])}
