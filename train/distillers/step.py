"""What the terms of one training step look at, each thing made once and only if a term asks for it.

Shapes: B batch, N cameras, C channels, H W cells of the teacher's BEV map, h w cells of an image level,
Q object queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from camera3d.detectors import Outputs
from train.distillers.areas import SampleAreas
from train.distillers.compared import ComparedMaps
from train.losses import MaskedGenerator
from train.losses.regions import Region, weights_of
from train.targets import TeacherTargets


class DistillationStep:
    """One batch: the student's outputs, the teacher's, and where to compare them.

    Args:
        student: outputs of the last frame of each queue.
        teacher: targets of the same frames.
        areas: of each sample, on the device.
        bev_generator: None when no term reads a generated map.
    """

    def __init__(
        self,
        *,
        student: Outputs,
        teacher: TeacherTargets,
        areas: Sequence[SampleAreas],
        maps: ComparedMaps,
        bev_generator: MaskedGenerator | None,
    ) -> None:
        self.student, self.teacher = student, teacher
        self._areas, self._maps, self._bev_generator = areas, maps, bev_generator

    @cached_property
    def generated_bev(self) -> Tensor:
        """(B, C, H, W): the teacher's map, made of the student's own with a part of its areas hidden."""
        hidden = weights_of([areas.hidden_bev for areas in self._areas])
        return self._bev_generator(self.student_bev, hidden[:, 0])

    @property
    def student_bev(self) -> Tensor:
        """(B, C, H, W), the student's own map."""
        return self.student[self._maps.bev.student.name]

    @cached_property
    def teacher_bev(self) -> Tensor:
        """(B, C, H, W)."""
        return self.teacher.map(self._maps.bev.teacher.name)

    @property
    def confidence(self) -> list[Region]:
        """(Q,) of each sample, zero for queries that are not confident."""
        return [areas.confidence for areas in self._areas]

    @property
    def bev_area(self) -> list[Region]:
        """(1, H, W) of each sample."""
        return [areas.bev for areas in self._areas]

    @property
    def pv_areas(self) -> list[list[Region]]:
        """For each compared level (N, h, w) of each sample."""
        return [list(level) for level in zip(*(areas.images for areas in self._areas), strict=True)]

    @property
    def pv_seen(self) -> list[Tensor | None]:
        """For each compared level (B, N, h, w) bool, which cells of pictures the teacher saw; None: all."""
        if not self._areas[0].seen:
            return [None] * len(self._maps.levels)
        return [torch.stack(level) for level in zip(*(areas.seen for areas in self._areas), strict=True)]

    @property
    def heatmap(self) -> list[Region]:
        """(H, W) in [0, 1] of each sample."""
        return [areas.heatmap for areas in self._areas]
