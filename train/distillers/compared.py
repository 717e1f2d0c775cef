"""Which of the student's maps is compared with which of the teacher's, and what these maps cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn

from camera3d.detectors import OutputSpec
from camera3d.detectors.protocol import BEV_MAP, IMAGE_MAP, with_role
from train.losses import BevRestore
from train.targets.description import TeacherDescription


@dataclass(frozen=True, kw_only=True)
class LevelPair:
    """Two image levels. `number` is the student's, from 0, which names the losses."""

    number: int
    student: OutputSpec
    teacher: OutputSpec


@dataclass(frozen=True, kw_only=True)
class BevPair:
    """The two BEV maps, whether or not targets of the teacher's are there."""

    student: OutputSpec
    teacher: OutputSpec

    @property
    def doublings(self) -> int | None:
        """How often both sides of the student's are doubled to be the teacher's; None when that fails."""
        (height, width), wanted = self.student.shape[-2:], tuple(self.teacher.shape[-2:])
        return next((n for n in range(8) if (height << n, width << n) == wanted), None)

    def restoring_layers(self) -> nn.Module:
        """The released deconvolution for each doubling."""
        own, wanted = self.student.shape[0], self.teacher.shape[0]
        if not self.doublings:
            return nn.Identity() if own == wanted else nn.Conv2d(own, wanted, 1)
        widths = [own, *[wanted] * self.doublings]
        stages = [BevRestore(student_channels=a, teacher_channels=b) for a, b in pairwise(widths)]
        return nn.Sequential(*stages) if len(stages) > 1 else stages[0]

    @property
    def xy_range_m(self) -> tuple[float, float, float, float]:
        """Lowest x and y, highest x and y that the student's map covers."""
        return tuple(self.student.extent_m[axis] for axis in (0, 1, 3, 4))


@dataclass(frozen=True, kw_only=True)
class ComparedMaps:
    """All that a distillation compares.

    Attributes:
        levels: pairs of image levels; empty when no term compares them.
        bev: None when student or teacher has no such map.
        student_images: all image maps of the student, which its queries may read.
    """

    levels: tuple[LevelPair, ...]
    bev: BevPair | None
    student_images: tuple[OutputSpec, ...]


def bev_pair(student: Sequence[OutputSpec], teacher: TeacherDescription) -> BevPair | None:
    """The two BEV maps; None when there are no two."""
    own, wanted = with_role(student, BEV_MAP), teacher.with_role(BEV_MAP)
    return BevPair(student=own[0], teacher=wanted[0]) if own and wanted else None


def level_pairs(
    chosen: Sequence[tuple[int, int]] | None, student: Sequence[OutputSpec], teacher: TeacherDescription
) -> tuple[LevelPair, ...]:
    """The image levels to compare.

    Args:
        chosen: the student's and the teacher's levels, each counted from 0; None pairs them in order.

    Raises ValueError for a level that is not there.
    """
    own, wanted = with_role(student, IMAGE_MAP), teacher.with_role(IMAGE_MAP)
    if chosen is None:
        chosen = [(level, level) for level in range(min(len(own), len(wanted)))]
    pairs = []
    for ours, theirs in chosen:
        if not (0 <= ours < len(own) and 0 <= theirs < len(wanted)):
            raise ValueError(
                f"pv_levels: no pair of levels ({ours}, {theirs}); the student has {len(own)}, the teacher"
                f" {len(wanted)}"
            )
        pairs.append(LevelPair(number=ours, student=own[ours], teacher=wanted[theirs]))
    return tuple(pairs)
