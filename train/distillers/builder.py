"""From a config and a teacher's description to a distiller: decides which part goes with which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from camera3d.detectors.bevformer.detector import BEVFormer
from camera3d.errors import ConfigInvalid
from train.distillers.areas import MapGeometry
from train.distillers.config import DistillerConfig
from train.distillers.distiller import Distiller, TargetSource
from train.distillers.fit import BevLift, check_fit, level_pairs
from train.distillers.terms import TERMS
from train.losses import MaskedGenerator
from train.targets.description import VALUE_PROJECTION, TeacherDescription


def build_distiller(
    config: Config,
    chosen: DistillerConfig,
    *,
    student: BEVFormer,
    teacher: TeacherDescription,
    source: TargetSource,
) -> Distiller:
    """Put a distiller together around a student that has its initial weights.

    Raises:
        TargetsUnfit: maps or queries of student and teacher do not go together; lists every reason.
        ConfigInvalid: a term takes no such keyword.
    """
    student_maps = student.feature_maps(tuple(config.inputs.pad_hw))
    pairs = level_pairs(chosen, student_maps, teacher)
    start = check_fit(config, chosen, student, student_maps, teacher, pairs)
    own_bev = next(m for m in student_maps if m.name == "bev_feats").shape
    lift = BevLift(own_bev, (teacher.bev_channels or own_bev[0], *teacher.bev_hw))
    geometry = MapGeometry(
        xy_range_m=tuple(config.model.point_cloud_range[i] for i in (0, 1, 3, 4)),
        bev_hw=teacher.bev_hw,
        student_bev_hw=own_bev[-2:],
        pv_hws=tuple(student_maps[own].shape[-2:] for own, _ in pairs),
        pv_strides=tuple(student_maps[own].stride for own, _ in pairs),
    )
    channels = student_maps[0].shape[1]
    terms = {
        name: _term(name, options, pairs, channels, lift, teacher) for name, options in chosen.terms.items()
    }
    student.load_state_dict(start, strict=False)
    if start:
        head = len(student.head_weights())
        print_log(f"{len(start)} of {head} weights of the head start from the teacher's", "current")
    return Distiller(
        student=student,
        terms=terms,
        # A part that no term uses would get no gradient, which data-parallel training refuses.
        bev_generator=_bev_generator(lift, chosen) if "generated" in chosen.bev_maps.values() else None,
        geometry=geometry,
        areas=chosen.areas,
        source=source,
    )


def _term(
    name: str,
    options: Mapping[str, object],
    pairs: Sequence[tuple[int, int]],
    channels: int,
    lift: BevLift,
    teacher: TeacherDescription,
) -> nn.Module:
    given: dict[str, object] = dict(options)
    if TERMS[name].needs.pv:
        given["levels"] = pairs
    if name == "pv_generation":
        given["channels"] = channels
    if name == "bev_heatmap":
        given["restore"] = lift.restoring_layers()
    if TERMS[name].needs.head:
        given["value_projections"] = value_projections(teacher.head)
    try:
        return TERMS[name](**given)
    except (TypeError, ValueError) as error:
        raise ConfigInvalid(f"distiller.terms.{name}: {error}") from error


def _bev_generator(lift: BevLift, chosen: DistillerConfig) -> MaskedGenerator:
    try:
        return MaskedGenerator(
            channels=lift.own[0],
            teacher_channels=lift.wanted[0],
            doublings=lift.doublings,
            mask_ratio=chosen.bev_mask_ratio,
        )
    except (TypeError, ValueError) as error:
        raise ConfigInvalid(f"distiller.bev_mask_ratio: {error}") from error


def value_projections(head: Mapping[str, Tensor]) -> list[nn.Linear]:
    """The teacher's value projections of all decoder layers, frozen."""
    projections = []
    while (key := VALUE_PROJECTION.format(len(projections))) + "weight" in head:
        weight, bias = head[f"{key}weight"], head[f"{key}bias"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        projections.append(layer.requires_grad_(False))
    return projections
