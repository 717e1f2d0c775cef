"""What every term is, and what it is built from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor, nn

from train.distillers.compared import ComparedMaps
from train.distillers.step import DistillationStep

# How the queries of a teacher say where they read: positions and weights on a BEV map, or on image maps with
# what each camera sees. What was read comes last.
SAMPLING_ARRAYS = {
    "bev": ("sampling_locations", "attention_weights", "focal_feats"),
    "image": ("image_points", "image_visible", "image_weights", "focal_feats"),
}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a term takes from the teacher.

    Attributes:
        image_maps, bev_map: whether it compares image maps of all paired levels, or the BEV maps.
        queries: names of arrays about queries.
        sampling: whether it reads where the queries read.
        areas: whether it looks at instance areas, which may be drawn from the teacher's detections.
        whole_maps: whether cells outside the instances matter, which profile `focal` leaves out.
        heatmap: whether it looks under the ground-truth heatmap.
        confidence: whether it weighs queries by their confidence.
        aligned: whether it compares query by query, so that student and teacher must have the same ones.
    """

    image_maps: bool = False
    bev_map: bool = False
    queries: tuple[str, ...] = ()
    sampling: bool = False
    areas: bool = False
    whole_maps: bool = False
    heatmap: bool = False
    confidence: bool = False
    aligned: bool = False


@dataclass(frozen=True, kw_only=True)
class TermContext:
    """What a term may be built from.

    Attributes:
        maps: the compared ones.
        sampling: "bev" or "image", see SAMPLING_ARRAYS; None when the teacher's queries tell neither.
        query_numbers: of a box of `query_boxes`; None without queries.
        projections: of the teacher, what it does to its BEV map before the queries of each layer read it.
    """

    maps: ComparedMaps
    sampling: str | None
    projections: tuple[nn.Linear, ...]
    query_numbers: int | None = None


class Term(nn.Module):
    """A part of the loss: asks a step for what it compares, and returns named losses."""

    needs: ClassVar[Needs]
    BEV_MAPS: ClassVar[tuple[str, ...]] = ()
    """Which of the student's BEV maps it can read, the one it reads by default first."""

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """A term with a config's keywords.

        Raises TypeError or ValueError for a keyword that it does not take.
        """
        raise NotImplementedError

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """The losses by name."""
        raise NotImplementedError
