"""Whether student and teacher go together: maps of the same places, equal queries, a head that fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mmengine.config import Config
from torch import Tensor, nn

from camera3d.detectors import FeatureMap
from camera3d.detectors.bevformer.detector import BEVFormer
from camera3d.detectors.bevformer.start import StartUnfit
from camera3d.errors import shown
from train.distillers.config import DistillerConfig
from train.losses import BevRestore
from train.targets import TargetsUnfit
from train.targets.description import TeacherDescription

SHOWN_FAULTS = 3  # of a head that does not fit: the rest is alike


@dataclass(frozen=True)
class BevLift:
    """From the student's BEV map to one of the teacher's size; shapes are (C, H, W).

    Attributes:
        own, wanted: the student's and the teacher's.
    """

    own: tuple[int, int, int]
    wanted: tuple[int, int, int]

    @property
    def doublings(self) -> int | None:
        """How often both sides are doubled; None when that does not lead there."""
        height, width = self.own[-2:]
        return next((n for n in range(8) if (height << n, width << n) == tuple(self.wanted[-2:])), None)

    def restoring_layers(self) -> nn.Module:
        """The released deconvolution for each doubling."""
        own, wanted = self.own[0], self.wanted[0]
        if not self.doublings:
            return nn.Identity() if own == wanted else nn.Conv2d(own, wanted, 1)
        widths = [own, *[wanted] * self.doublings]
        stages = [BevRestore(student_channels=a, teacher_channels=b) for a, b in pairwise(widths)]
        return nn.Sequential(*stages) if len(stages) > 1 else stages[0]


def level_pairs(
    chosen: DistillerConfig, student_maps: Sequence[FeatureMap], teacher: TeacherDescription
) -> tuple[tuple[int, int], ...]:
    """The student's and the teacher's image levels to compare; none when no term does."""
    if not chosen.reads_pv:
        return ()
    if chosen.pv_levels is not None:
        return chosen.pv_levels
    own = sum(feature_map.stride is not None for feature_map in student_maps)
    return tuple((level, level) for level in range(min(own, len(teacher.pv_strides))))


def check_fit(
    config: Config,
    chosen: DistillerConfig,
    student: BEVFormer,
    student_maps: Sequence[FeatureMap],
    teacher: TeacherDescription,
    pairs: Sequence[tuple[int, int]],
) -> dict[str, Tensor]:
    """The weights that the student's head starts from.

    Raises TargetsUnfit unless these and every configured comparison are between what corresponds.
    """
    own = {feature_map.name: feature_map for feature_map in student_maps}
    faults = []
    if chosen.reads_pv:
        faults += _level_faults(config.inputs.scale, own, teacher, pairs)
    if chosen.bev_maps:
        faults += _bev_faults(config, chosen, own["bev_feats"].shape, teacher)
    if "query" in chosen.terms:
        ours, theirs = (
            maps["query_logits"] for maps in ({n: m.shape for n, m in own.items()}, teacher.shapes)
        )
        if ours != theirs:
            faults.append(f"query term: the student's queries are {ours}, the teacher's {theirs}")
    start: dict[str, Tensor] = {}
    try:
        start = student.start_from(
            chosen.init_from_teacher, teacher.head, teacher.head_scale, image_scale=config.inputs.scale
        )
    except StartUnfit as error:
        more = len(error.faults) - SHOWN_FAULTS
        faults += error.faults[:SHOWN_FAULTS] + ([f"… and {more} more weights"] if more > 0 else [])
        faults.append(
            "the head cannot start from the teacher's: set distiller.init_from_teacher='none', and leave the"
            " query term out"
        )
    if faults:
        raise TargetsUnfit(
            f"the student of {config.filename or 'the config'} cannot follow {teacher.name}:\n{shown(faults)}"
        )
    return start


def _level_faults(
    scale: float, own: Mapping[str, FeatureMap], teacher: TeacherDescription, pairs: Sequence[tuple[int, int]]
) -> list[str]:
    faults = [] if pairs else ["pv_levels: no image level to compare"]
    for ours, theirs in pairs:
        student, shape = own.get(f"pv_feats_{ours}"), teacher.shapes.get(f"pv_feats_{theirs}")
        if student is None or shape is None:
            faults.append(f"pv_levels: no pair of levels ({ours}, {theirs})")
            continue
        if student.shape != shape:
            faults.append(f"image level {ours}: {student.shape}, and the teacher's level {theirs}: {shape}")
        # Camera pixels a cell, before any scaling: a student that sees another part of the image, or sees it
        # larger, has other things in its cells than the stored maps.
        pixels = student.stride / scale, teacher.pv_strides[theirs] / teacher.image_scale
        if not math.isclose(*pixels):
            faults.append(
                f"image level {ours}: a cell covers {pixels[0]:g} camera pixels, the teacher's {pixels[1]:g};"
                " stored maps cannot follow another scale or crop of the images"
            )
    return faults


def _bev_faults(
    config: Config, chosen: DistillerConfig, own: tuple[int, ...], teacher: TeacherDescription
) -> list[str]:
    faults = []
    if tuple(config.model.point_cloud_range) != tuple(teacher.point_cloud_range):
        faults.append(
            f"BEV maps: the student's covers {tuple(config.model.point_cloud_range)}, the teacher's"
            f" {teacher.point_cloud_range} (metres)"
        )
    channels = teacher.bev_channels or own[0]
    wanted = (channels, *teacher.bev_hw)
    lifting = [name for name, bev_map in chosen.bev_maps.items() if bev_map != "raw"]
    if lifting and BevLift(own, wanted).doublings is None:
        faults.append(
            f"{', '.join(lifting)}: a BEV map {own} cannot be lifted to {wanted}: sides must be equal or"
            " 2, 4, … times"
        )
    raw = [name for name, bev_map in chosen.bev_maps.items() if bev_map == "raw"]
    if raw and own[0] != channels:
        faults.append(
            f"{', '.join(raw)}: the student's BEV map has {own[0]} channels, the teacher's {channels}; only a"
            " map of equal width can be compared as it is: set bev_map='generated'"
        )
    return faults
