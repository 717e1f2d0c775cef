"""FD3D's terms on object queries: what they read, and what they say."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn

from train.distillers.step import DistillationStep
from train.distillers.terms.term import SAMPLING_ARRAYS, Needs, Term, TermContext
from train.losses import FocalSampling, ImageFocalSampling, QueryAlignment
from train.losses.query_alignment import CODE_WEIGHTS

QUERY_ARRAYS = ("query_logits", "query_boxes")


class FocalTerm(Term):
    """What the teacher's decoder would read from the student's maps, against what it read from its own.

    Args:
        sampling: "bev" or "image": where the teacher's queries read, see SAMPLING_ARRAYS.
        projections: of the teacher's BEV map before it is read, one a decoder layer.
        image_maps: names of the student's maps that are read, of kind "image".
        bev_map: of kind "bev". `raw` reads the student's own map, which is what its head reads; `generated`
            the one that the generator made.
    """

    needs = Needs(queries=("query_logits",), sampling=True, areas=True, confidence=True)
    BEV_MAPS = ("raw", "generated")

    def __init__(
        self,
        *,
        sampling: str,
        projections: tuple[nn.Linear, ...],
        image_maps: tuple[str, ...],
        weight: float = 0.05,
        bev_map: str = "raw",
    ) -> None:
        super().__init__()
        self.arrays, self.image_maps, self.bev_map = SAMPLING_ARRAYS[sampling], image_maps, bev_map
        if sampling == "bev":
            self.sampling = FocalSampling(value_projections=projections, weight=weight)
        else:
            self.sampling = ImageFocalSampling(weight=weight)

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """See Term."""
        image_maps = tuple(spec.name for spec in context.maps.student_images)
        return cls(
            sampling=context.sampling, projections=context.projections, image_maps=image_maps, **options
        )

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """See Term."""
        arrays = (step.teacher.queries(name) for name in self.arrays)
        if isinstance(self.sampling, ImageFocalSampling):
            student: object = [step.student[name] for name in self.image_maps]
        else:
            student = step.generated_bev if self.bev_map == "generated" else step.student_bev
        return {"loss_focal": self.sampling(student, *arrays, step.confidence)}


class QueryTerm(Term):
    """Logits and boxes, query by query, of all decoder layers.

    Args:
        box_code: how many numbers a box of the queries has.
    """

    needs = Needs(queries=QUERY_ARRAYS, confidence=True, aligned=True)

    def __init__(self, *, box_code: int, logit_weight: float = 2.0, box_weight: float = 0.25) -> None:
        super().__init__()
        # Of a box in space the velocities count less; of one on a picture all four numbers alike.
        code_weights = CODE_WEIGHTS if box_code == len(CODE_WEIGHTS) else (1.0,) * box_code
        self.alignment = QueryAlignment(
            logit_weight=logit_weight, box_weight=box_weight, code_weights=code_weights
        )

    @classmethod
    def build(cls, context: TermContext, **options: object) -> Self:
        """See Term."""
        return cls(box_code=context.query_numbers, **options)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """See Term."""
        student = (step.student[name] for name in QUERY_ARRAYS)
        teacher = (step.teacher.queries(name) for name in QUERY_ARRAYS)
        logits, boxes = self.alignment(*student, *teacher, step.confidence)
        return {"loss_query_logits": logits, "loss_query_boxes": boxes}
