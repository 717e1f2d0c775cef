"""From a config and a teacher's description to a distiller: decides which part goes with which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import Tensor, nn

from camera3d.detectors import FeatureMap
from camera3d.detectors.bevformer.detector import BEVFormer
from camera3d.errors import ConfigInvalid, shown
from train.distillers.areas import AreaOptions, MapGeometry
from train.distillers.distiller import Distiller, TargetSource
from train.distillers.terms import READING_BEV, TERMS, Needs, generates
from train.losses import BevRestore, MaskedGenerator
from train.targets import TargetsUnfit
from train.targets.description import TeacherDescription

VALUE_PROJECTION = "pts_bbox_head.transformer.decoder.layers.{}.attentions.1.value_proj."


@dataclass(frozen=True, kw_only=True)
class DistillerConfig:
    """`distiller` of a config, checked.

    Attributes:
        terms: keywords of each term, by its name in TERMS.
        areas: where the terms look.
        pv_levels: which of the student's image levels is compared with which of the teacher's; None pairs
            them in order.
        bev_mask_ratio: how likely the BEV generator hides a cell of an area.
        init_head_from_teacher: whether decoder, branches and queries start from the teacher's.
    """

    terms: Mapping[str, Mapping[str, object]]
    areas: AreaOptions
    pv_levels: tuple[tuple[int, int], ...] | None = None
    bev_mask_ratio: float = 0.5
    init_head_from_teacher: bool = True

    @classmethod
    def from_config(cls, config: Config) -> DistillerConfig:
        """Raises ConfigInvalid, naming everything that cannot be."""
        if "distiller" not in config:
            raise ConfigInvalid(
                f"config {config.filename or ''} has no `distiller`: give one of configs/distill"
            )
        given = config.distiller
        if not isinstance(given, dict) or not all(
            isinstance(given.get(name, {}), dict) for name in ("terms", "areas")
        ):
            raise ConfigInvalid(
                f"config {config.filename or ''}: distiller, its terms and its areas must be dicts"
            )
        known = {"terms", "areas", "pv_levels", "bev_mask_ratio", "init_head_from_teacher"}
        faults = [
            f"{name}: unknown (known: {', '.join(sorted(known))})" for name in sorted(set(given) - known)
        ]
        terms = {name: options or {} for name, options in given.get("terms", {}).items()}
        faults += [
            f"terms.{name}: unknown (known: {', '.join(TERMS)})" for name in terms if name not in TERMS
        ]
        faults += [
            f"terms.{name}: expected a dict of keywords, got {options!r}"
            for name, options in terms.items()
            if not isinstance(options, dict)
        ]
        if not terms:
            faults.append("terms: none; without one there is nothing to distil, use train/train_detector.py")
        areas = dict(given.get("areas", {}))
        odd = sorted(set(areas) - set(AreaOptions.__dataclass_fields__))
        faults += [
            f"areas.{name}: unknown (known: {', '.join(AreaOptions.__dataclass_fields__)})" for name in odd
        ]
        levels = given.get("pv_levels")
        if levels is not None:
            try:
                levels = tuple((int(own), int(other)) for own, other in levels)
            except (TypeError, ValueError):
                faults.append(f"pv_levels: expected pairs (student's level, teacher's level), got {levels}")
        if faults:
            raise ConfigInvalid(f"distiller of config {config.filename or ''} cannot be:\n{shown(faults)}")
        return cls(
            terms=terms,
            areas=AreaOptions(**areas),
            pv_levels=levels,
            bev_mask_ratio=given.get("bev_mask_ratio", 0.5),
            init_head_from_teacher=given.get("init_head_from_teacher", True),
        )

    @property
    def needs(self) -> dict[str, Needs]:
        """What each configured term takes from the teacher."""
        return {name: TERMS[name].needs for name in self.terms}

    @property
    def reads_pv(self) -> bool:
        """Whether a term compares image maps."""
        return any(needs.pv for needs in self.needs.values())

    @property
    def reads_bev(self) -> bool:
        """Whether a term compares BEV maps, or reads the student's at the teacher's size."""
        return any(name in READING_BEV for name in self.terms)

    def arrays(self, pv_levels: Sequence[tuple[int, int]]) -> dict[str, tuple[str, ...]]:
        """By term, the names of the teacher's arrays that it reads."""
        wanted = {}
        for name, needs in self.needs.items():
            names = [f"pv_feats_{other}" for _, other in pv_levels] if needs.pv else []
            names += ["bev_feats"] if needs.bev else []
            names += needs.arrays
            if needs.areas and self.areas.queries:
                names += ["query_logits", "query_boxes"]
            wanted[name] = tuple(dict.fromkeys(names))
        return wanted


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
    check_fit(config, chosen, student, student_maps, teacher, pairs)
    own_bev = next(m for m in student_maps if m.name == "bev_feats").shape
    bev = teacher.shapes.get("bev_feats", own_bev)
    geometry = MapGeometry(
        xy_range_m=tuple(config.model.point_cloud_range[i] for i in (0, 1, 3, 4)),
        bev_hw=bev[-2:],
        pv_hws=tuple(student_maps[own].shape[-2:] for own, _ in pairs),
        pv_strides=tuple(student_maps[own].stride for own, _ in pairs),
    )
    channels = student_maps[0].shape[1]
    terms = {name: _term(name, options, pairs, channels, teacher) for name, options in chosen.terms.items()}
    if chosen.init_head_from_teacher:
        student.load_state_dict(teacher.head, strict=False)
    generated = any(generates(name, options) for name, options in chosen.terms.items())
    return Distiller(
        student=student,
        terms=terms,
        # Parts that no term uses would get no gradient, which data-parallel training refuses.
        restore=_restore(own_bev, bev) if chosen.reads_bev else nn.Identity(),
        bev_generator=_bev_generator(bev[0], chosen.bev_mask_ratio) if generated else None,
        geometry=geometry,
        areas=chosen.areas,
        source=source,
    )


def check_fit(
    config: Config,
    chosen: DistillerConfig,
    student: BEVFormer,
    student_maps: Sequence[FeatureMap],
    teacher: TeacherDescription,
    pairs: Sequence[tuple[int, int]],
) -> None:
    """Raise TargetsUnfit unless every configured comparison is between maps and queries that correspond."""
    own = {feature_map.name: feature_map for feature_map in student_maps}
    faults = []
    if chosen.reads_pv:
        faults += _level_faults(config.inputs.scale, own, teacher, pairs)
    if chosen.reads_bev:
        faults += _bev_faults(config, own["bev_feats"].shape, teacher)
    if "query" in chosen.terms:
        ours, theirs = (
            maps["query_logits"] for maps in ({n: m.shape for n, m in own.items()}, teacher.shapes)
        )
        if ours != theirs:
            faults.append(f"query term: the student's queries are {ours}, the teacher's {theirs}")
    if chosen.init_head_from_teacher:
        faults += _head_faults(student, teacher)
    if faults:
        raise TargetsUnfit(
            f"the student of {config.filename or 'the config'} cannot follow {teacher.name}:\n{shown(faults)}"
        )


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


def _bev_faults(config: Config, shape: tuple[int, ...], teacher: TeacherDescription) -> list[str]:
    faults = []
    if tuple(config.model.point_cloud_range) != tuple(teacher.point_cloud_range):
        faults.append(
            f"BEV maps: the student's covers {tuple(config.model.point_cloud_range)}, the teacher's"
            f" {teacher.point_cloud_range} (metres)"
        )
    other = teacher.shapes.get("bev_feats", shape)
    if _doublings(shape, other) is None:
        faults.append(f"BEV maps: {shape} cannot be lifted to {other}: sides must be equal or 2, 4, … times")
    return faults


def _head_faults(student: BEVFormer, teacher: TeacherDescription) -> list[str]:
    own = {key: tuple(weight.shape) for key, weight in student.distillation_head().items()}
    other = {key: tuple(weight.shape) for key, weight in teacher.head.items()}
    differing = [key for key in sorted({*own, *other}) if own.get(key) != other.get(key)]
    if not differing:
        return []
    key = differing[0]
    return [
        f"the head cannot start from the teacher's: {len(differing)} weights differ, such as {key}"
        f" ({own.get(key, 'none')} against {other.get(key, 'none')}); set"
        " distiller.init_head_from_teacher=False"
    ]


def _doublings(own: Sequence[int], other: Sequence[int]) -> int | None:
    """How often both sides of a map are doubled to get the other's; None when that does not lead there."""
    for times in range(8):
        if (own[-2] << times, own[-1] << times) == tuple(other[-2:]):
            return times
    return None


def _restore(own: Sequence[int], other: Sequence[int]) -> nn.Module:
    times = _doublings(own, other)
    if times == 0:
        return nn.Identity() if own[0] == other[0] else nn.Conv2d(own[0], other[0], 1)
    stages = [
        BevRestore(student_channels=own[0] if stage == 0 else other[0], teacher_channels=other[0])
        for stage in range(times)
    ]
    return nn.Sequential(*stages) if len(stages) > 1 else stages[0]


def _term(
    name: str,
    options: Mapping[str, object],
    pairs: Sequence[tuple[int, int]],
    channels: int,
    teacher: TeacherDescription,
) -> nn.Module:
    given: dict[str, object] = dict(options)
    if TERMS[name].needs.pv:
        given["levels"] = pairs
    if name == "pv_generation":
        given["channels"] = channels
    if TERMS[name].needs.head:
        given["value_projections"] = value_projections(teacher.head)
    try:
        return TERMS[name](**given)
    except (TypeError, ValueError) as error:
        raise ConfigInvalid(f"distiller.terms.{name}: {error}") from error


def _bev_generator(channels: int, mask_ratio: float) -> MaskedGenerator:
    try:
        return MaskedGenerator(channels=channels, mask_ratio=mask_ratio)
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
