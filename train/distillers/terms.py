"""The terms a config can name: each takes a step, asks it for what it compares, and returns named losses.

The arithmetic is in train/losses, which knows tensors only; here is what is compared with what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from train.distillers.step import DistillationStep
from train.losses import (
    AreaL2,
    ChannelWiseDivergence,
    FocalSampling,
    HeatmapL2,
    MaskedGeneration,
    MaskedGenerator,
    QueryAlignment,
)
from train.losses.checks import zero_with_graph

QUERY_ARRAYS = ("query_logits", "query_boxes")
SAMPLING_ARRAYS = ("sampling_locations", "attention_weights", "focal_feats")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a term takes from the teacher.

    Attributes:
        pv, bev: whether it reads image maps of all compared levels, or the BEV map.
        arrays: other arrays, by name.
        areas: whether it looks at instance areas, which may be drawn from the teacher's queries.
        whole_maps: whether cells outside the instances matter, which profile `focal` leaves out.
        head: whether it takes weights of the teacher's decoder.
        confidence: whether it weighs queries by their confidence.
    """

    pv: bool = False
    bev: bool = False
    arrays: tuple[str, ...] = ()
    areas: bool = False
    whole_maps: bool = False
    head: bool = False
    confidence: bool = False


class PvDivergence(nn.Module):
    """Channel-wise divergence on every compared image level, the term of the released HeatmapDistiller."""

    needs = Needs(pv=True, whole_maps=True)

    def __init__(self, *, levels: Sequence[tuple[int, int]], tau: float = 2.0, weight: float = 0.25) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.divergence = ChannelWiseDivergence(tau=tau, weight=weight)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        return {
            f"loss_pv_divergence_{own}": self.divergence(
                step.student.pv_feats[own], step.teacher.map(f"pv_feats_{other}")
            )
            for own, other in self.levels
        }


class BevHeatmap(nn.Module):
    """L2 of the BEV maps under the ground-truth heatmap, the term of the released HeatmapDistiller.

    Args:
        restore: lifts the student's BEV map to the teacher's size.
    """

    needs = Needs(bev=True)

    def __init__(self, *, restore: nn.Module, weight: float = 0.1) -> None:
        super().__init__()
        self.restore, self.distance = restore, HeatmapL2(weight=weight)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        restored = self.restore(step.student.bev_feats)
        return {"loss_bev_heatmap": self.distance(restored, step.teacher_bev, step.heatmap)}


class PvGeneration(nn.Module):
    """Masked generation on every compared image level, with a generator each."""

    needs = Needs(pv=True, areas=True)

    def __init__(
        self,
        *,
        levels: Sequence[tuple[int, int]],
        channels: int,
        mask_ratio: float = 0.5,
        weight: float = 0.02,
        skip_empty: bool = True,
    ) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.generations = nn.ModuleList(
            MaskedGeneration(
                generator=MaskedGenerator(channels=channels, mask_ratio=mask_ratio),
                distance=AreaL2(weight=weight / len(self.levels)),
                skip_empty=skip_empty,
            )
            for _ in self.levels
        )

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        losses = {}
        for (own, other), generation, area in zip(self.levels, self.generations, step.pv_areas, strict=True):
            loss, _ = generation(step.student.pv_feats[own], step.teacher.map(f"pv_feats_{other}"), area)
            losses[f"loss_pv_generation_{own}"] = loss
        return losses


class BevGeneration(nn.Module):
    """Distance of the student's BEV map to the teacher's over the instance areas.

    Args:
        bev_map: which map is compared. `generated`: what the generator made of the masked map, as the paper's
            figure has it. `raw`: the student's own map, enlarged bilinearly, so that no layer stands between
            the loss and the map that the head reads.
    """

    needs = Needs(bev=True, areas=True)

    def __init__(self, *, weight: float = 0.05, bev_map: str = "generated") -> None:
        super().__init__()
        self.bev_map, self.distance = bev_map, AreaL2(weight=weight)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        wanted, area = step.teacher_bev, step.bev_area
        if self.bev_map == "generated":
            student = step.generated_bev
        else:
            own = step.student.bev_feats
            student = F.interpolate(own, size=wanted.shape[-2:], mode="bilinear", align_corners=False)
        loss = self.distance(student[:, None], wanted[:, None], area[:, None])
        # Without an area the distance has met no cell: the generator takes part in every step all the same.
        return {"loss_bev_generation": loss + zero_with_graph([student])}


class FocalTerm(nn.Module):
    """What the teacher's decoder would read from the student's BEV map, against what it read from its own.

    Args:
        bev_map: `raw` reads the student's own map, which is what its head reads; `generated` the one that the
            generator made.
    """

    needs = Needs(arrays=(*QUERY_ARRAYS, *SAMPLING_ARRAYS), areas=True, head=True, confidence=True)

    def __init__(
        self, *, value_projections: Sequence[nn.Linear], weight: float = 0.05, bev_map: str = "raw"
    ) -> None:
        super().__init__()
        self.bev_map = bev_map
        self.sampling = FocalSampling(value_projections=value_projections, weight=weight)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        arrays = (step.teacher.queries(name) for name in SAMPLING_ARRAYS)
        student = step.generated_bev if self.bev_map == "generated" else step.student.bev_feats
        return {"loss_focal": self.sampling(student, *arrays, step.confidence)}


class QueryTerm(nn.Module):
    """Logits and boxes, query by query, of all decoder layers."""

    needs = Needs(arrays=QUERY_ARRAYS, confidence=True)

    def __init__(self, *, logit_weight: float = 2.0, box_weight: float = 0.25) -> None:
        super().__init__()
        self.alignment = QueryAlignment(logit_weight=logit_weight, box_weight=box_weight)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        teacher = (step.teacher.queries(name) for name in QUERY_ARRAYS)
        logits, boxes = self.alignment(
            step.student.query_logits, step.student.query_boxes, *teacher, step.confidence
        )
        return {"loss_query_logits": logits, "loss_query_boxes": boxes}


TERMS: dict[str, type[nn.Module]] = {
    "pv_divergence": PvDivergence,
    "bev_heatmap": BevHeatmap,
    "pv_generation": PvGeneration,
    "bev_generation": BevGeneration,
    "focal": FocalTerm,
    "query": QueryTerm,
}
# What the terms on BEV maps read where the config says nothing.
BEV_MAPS = {"bev_heatmap": "restored", "bev_generation": "generated", "focal": "raw"}


def bev_map_of(name: str, options: Mapping[str, object]) -> str | None:
    """Which of the student's BEV maps a term reads, with these keywords: restored, generated or raw.

    Raises ValueError for a map that the term cannot read.
    """
    if name not in BEV_MAPS:
        return None
    chosen = options.get("bev_map", BEV_MAPS[name])
    if name != "bev_heatmap" and chosen not in ("raw", "generated"):
        raise ValueError(f"bev_map: expected raw or generated, got {chosen!r}")
    return chosen
