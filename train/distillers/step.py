"""What the terms of one training step look at, each thing made once and only if a term asks for it.

Shapes: B batch, N cameras, C channels, H W cells of the teacher's BEV map, h w cells of an image level,
Q object queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from torch import Tensor

from camera3d.boxes import move_boxes
from camera3d.detectors import Outputs
from train.distillers.areas import AreaOptions, bev_areas, heatmaps, image_areas, instance_boxes
from train.distillers.compared import ComparedMaps
from train.losses import MaskedGenerator
from train.targets import TeacherTargets


class DistillationStep:
    """One batch: the student's outputs, the teacher's, and where to compare them.

    Args:
        student: outputs of the last frame of each queue.
        teacher: targets of the same frames.
        ground_truth: for each sample (n, 9) boxes in our convention.
        lidar2img: (B, N, 4, 4), LiDAR metres to pixels of the student's input.
        lidar2ego: (B, 4, 4), LiDAR to ego metres; None unless the BEV maps lie in the ego frame.
        bev_generator: None when no term reads a generated map.
    """

    def __init__(
        self,
        *,
        student: Outputs,
        teacher: TeacherTargets,
        ground_truth: Sequence[Tensor],
        lidar2img: Tensor,
        maps: ComparedMaps,
        areas: AreaOptions,
        bev_generator: MaskedGenerator | None,
        lidar2ego: Tensor | None = None,
    ) -> None:
        self.student, self.teacher = student, teacher
        self._ground_truth, self._lidar2img = ground_truth, lidar2img
        self._maps, self._areas = maps, areas
        self._bev_generator = bev_generator
        self._lidar2ego = lidar2ego

    @cached_property
    def generated_bev(self) -> Tensor:
        """(B, C, H, W): the teacher's map, made of the student's own with a part of its areas hidden."""
        bev = self._maps.bev
        hidden = bev_areas(self._on_bev(self._instance_boxes), bev.student.shape[-2:], bev, self._areas)
        return self._bev_generator(self.student_bev, hidden)

    @property
    def student_bev(self) -> Tensor:
        """(B, C, H, W), the student's own map."""
        return self.student[self._maps.bev.student.name]

    @cached_property
    def teacher_bev(self) -> Tensor:
        """(B, C, H, W)."""
        return self.teacher.map(self._maps.bev.teacher.name)

    @cached_property
    def confidence(self) -> Tensor:
        """(B, Q), zero for queries that are not confident."""
        return self.teacher.confidence(min_score=self._areas.min_score, at_most=self._areas.at_most)

    @cached_property
    def bev_area(self) -> Tensor:
        """(B, H, W) bool."""
        bev = self._maps.bev
        return bev_areas(self._on_bev(self._instance_boxes), bev.teacher.shape[-2:], bev, self._areas)

    @cached_property
    def pv_areas(self) -> list[Tensor]:
        """For each compared level (B, N, h, w) bool."""
        return image_areas(self._instance_boxes, self._lidar2img, self._maps.levels, self._areas)

    @cached_property
    def heatmap(self) -> Tensor:
        """(B, H, W) in [0, 1]."""
        return heatmaps(self._on_bev(self._ground_truth), self._maps.bev)

    def _on_bev(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """Boxes of the LiDAR frame in the frame of the BEV maps."""
        if self._maps.bev.student.frame == "lidar":
            return list(boxes)
        return [move_boxes(own, matrix) for own, matrix in zip(boxes, self._lidar2ego, strict=True)]

    @cached_property
    def _instance_boxes(self) -> list[Tensor]:
        detected = None
        if self._areas.queries:
            areas = self._areas
            detected = self.teacher.detected_boxes(min_score=areas.min_score, at_most=areas.at_most)
        return instance_boxes(self._ground_truth, detected, self._areas)
