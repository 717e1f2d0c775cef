"""Whether student and teacher go together: maps of the same places, equal queries, a head that fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmengine.config import Config
from torch import Tensor

from cache_schema.detections import DETECTION_BOXES, DETECTION_SCORES
from camera3d.data.augmentation import Augmentation
from camera3d.detectors import Detector, OutputSpec
from camera3d.detectors.protocol import BEV_MAP, IMAGE_MAP, with_role
from camera3d.errors import StartUnfit, shown
from train.distillers.areas import AreaArtist
from train.distillers.compared import BevPair, ComparedMaps, LevelPair, bev_pair, level_pairs
from train.distillers.config import DistillerConfig
from train.distillers.terms import SAMPLING_ARRAYS
from train.targets.checks import TargetsUnfit
from train.targets.description import TeacherDescription
from train.targets.warp import REFERENCES, TargetWarp

SHOWN_FAULTS = 3  # of a head that does not fit: the rest is alike


def sampling_kind(teacher: TeacherDescription) -> str | None:
    """Where the teacher's queries read, see SAMPLING_ARRAYS; None when it does not say."""
    return next((kind for kind, names in SAMPLING_ARRAYS.items() if set(names) <= set(teacher.specs)), None)


def wanted_arrays(
    chosen: DistillerConfig, maps: ComparedMaps, teacher: TeacherDescription
) -> dict[str, tuple[str, ...]]:
    """By term, the names of the stored arrays that it reads."""
    kind = sampling_kind(teacher)
    wanted = {}
    for name, needs in chosen.needs.items():
        names = [level.teacher.name for level in maps.levels] if needs.image_maps else []
        names += [maps.bev.teacher.name] if needs.bev_map else []
        names += needs.queries
        names += SAMPLING_ARRAYS[kind] if needs.sampling else ()
        names += [DETECTION_BOXES, DETECTION_SCORES] if needs.areas and chosen.areas.queries else []
        wanted[name] = tuple(dict.fromkeys(names))
    return wanted


def compared_maps(
    config: Config,
    chosen: DistillerConfig,
    student: Sequence[OutputSpec],
    teacher: TeacherDescription,
) -> ComparedMaps:
    """The maps that the terms compare.

    Raises TargetsUnfit unless student and teacher have what the terms ask for, and the maps correspond.
    """
    own = {spec.name: spec for spec in student}
    bev = bev_pair(student, teacher)
    levels: tuple[LevelPair, ...] = ()
    faults = _missing_roles(chosen, own, teacher, bev)
    if chosen.reads_images:
        try:
            levels = level_pairs(chosen.pv_levels, student, teacher)
            faults += _level_faults(config.inputs, levels, teacher)
        except ValueError as error:
            faults.append(str(error))
    if bev is not None:
        faults += _bev_faults(reading_bev(chosen, teacher), bev)
    faults += _moved_query_faults(config, chosen, own)
    if faults:
        raise TargetsUnfit(refusal(config, teacher, faults))
    return ComparedMaps(levels=levels, bev=bev, student_images=tuple(with_role(student, IMAGE_MAP)))


def start_weights(
    config: Config, chosen: DistillerConfig, student: Detector, teacher: TeacherDescription
) -> Mapping[str, Tensor]:
    """The weights that the student's head starts from. Raises TargetsUnfit when the teacher's do not fit."""
    try:
        return student.start_from(chosen.init_from_teacher, teacher.start, image_scale=config.inputs.scale)
    except StartUnfit as error:
        more = len(error.faults) - SHOWN_FAULTS
        faults = error.faults[:SHOWN_FAULTS] + ([f"… and {more} more weights"] if more > 0 else [])
        faults.append(
            "the head cannot start from the teacher's: set distiller.init_from_teacher='none', and leave the"
            " query term out"
        )
        raise TargetsUnfit(refusal(config, teacher, faults)) from error


def refusal(config: Config, teacher: TeacherDescription, faults: Sequence[str]) -> str:
    """The message of a student that cannot be taught."""
    return f"the student of {config.filename or 'the config'} cannot follow {teacher.name}:\n{shown(faults)}"


def reading_bev(chosen: DistillerConfig, teacher: TeacherDescription) -> dict[str, str]:
    """By term, which of the student's BEV maps it reads: without those that read images with this teacher."""
    images = sampling_kind(teacher) == "image"
    needs = chosen.needs
    return {
        name: bev_map for name, bev_map in chosen.bev_maps.items() if not (images and needs[name].sampling)
    }


def area_artist(chosen: DistillerConfig, maps: ComparedMaps, teacher: TeacherDescription) -> AreaArtist:
    """Who draws what the configured terms look at."""
    needs = chosen.needs.values()
    return AreaArtist(
        maps=maps,
        options=chosen.areas,
        hidden_bev="generated" in reading_bev(chosen, teacher).values(),
        bev=any(need.areas and need.bev_map for need in needs),
        images=any(need.areas and need.image_maps for need in needs),
        heatmap=any(need.heatmap for need in needs),
        confidence=any(need.confidence for need in needs),
        seen=any(need.whole_maps and need.image_maps for need in needs),
    )


def target_warp(config: Config, maps: ComparedMaps, teacher: TeacherDescription) -> TargetWarp:
    """What moves the targets of augmented samples."""
    bev_maps = teacher.with_role(BEV_MAP)
    placed = [*bev_maps[:1], *(spec for spec in teacher.specs.values() if spec.name == REFERENCES)]
    return TargetWarp(
        image_hw=tuple(config.inputs.pad_hw),
        # Cells correspond: a student's stride in its pixels is the teacher's in its own.
        pixels={level.teacher.name: level.student.stride for level in maps.levels},
        extents_m={spec.name: spec.extent_m for spec in placed},
        bev_map=bev_maps[0].name if bev_maps else None,
        bev_hw=tuple(bev_maps[0].shape[-2:]) if bev_maps else (1, 1),
    )


def _missing_roles(
    chosen: DistillerConfig,
    own: Mapping[str, OutputSpec],
    teacher: TeacherDescription,
    bev: BevPair | None,
) -> list[str]:
    faults = []
    reads_bev = reading_bev(chosen, teacher)
    for name, needs in chosen.needs.items():
        if needs.sampling and sampling_kind(teacher) is None:
            faults.append(f"{name}: the teacher's outputs do not say where its queries read")
        elif name in reads_bev and bev is None:
            faults.append(f"{name}: compares BEV maps, and student and teacher do not both have one")
        lacking = [array for array in needs.queries if array not in teacher.specs]
        if lacking:
            faults.append(f"{name}: the teacher has no {', '.join(lacking)}, as it has no object queries")
        elif needs.aligned:
            faults += _query_faults(name, needs.queries, own, teacher)
    return faults


def _query_faults(
    term: str, queries: Sequence[str], own: Mapping[str, OutputSpec], teacher: TeacherDescription
) -> list[str]:
    for name in queries:
        ours, theirs = own.get(name), teacher.specs[name]
        if ours is None:
            return [f"{term} term: the student has no {name}"]
        if ours.shape != theirs.shape:
            return [f"{term} term: the student's {name} are {ours.shape}, the teacher's {theirs.shape}"]
    return []


def _moved_query_faults(config: Config, chosen: DistillerConfig, own: Mapping[str, OutputSpec]) -> list[str]:
    augmentation = Augmentation.from_config(config)
    if augmentation is None or augmentation.bev is None or REFERENCES not in own:
        return []
    return [
        f"{name} term: under augmentation.bev objects move, and the student's queries stay at their places:"
        " query by query there is nothing to compare. Leave the term or augmentation.bev out"
        for name, needs in chosen.needs.items()
        if needs.aligned
    ]


def _level_faults(
    inputs: Mapping[str, object], levels: Sequence[LevelPair], teacher: TeacherDescription
) -> list[str]:
    faults = [] if levels else ["pv_levels: no image level to compare"]
    fit = inputs.get("fit")
    if (None if fit is None else tuple(fit)) != teacher.image_fit:
        faults.append(
            f"inputs.fit: {fit}, and the teacher's is {teacher.image_fit}: pictures of different sizes would"
            " be scaled differently"
        )
    for level in levels:
        own, wanted = level.student, level.teacher
        if own.shape != wanted.shape:
            faults.append(
                f"image level {level.number}: {own.shape}, and the teacher's {wanted.name}: {wanted.shape}"
            )
        # Camera pixels a cell, before any scaling: a student that sees another part of the image, or sees it
        # larger, has other things in its cells than the stored maps.
        pixels = own.stride / inputs.scale, wanted.stride / teacher.image_scale
        if not math.isclose(*pixels):
            faults.append(
                f"image level {level.number}: a cell covers {pixels[0]:g} camera pixels, the teacher's"
                f" {pixels[1]:g}; stored maps cannot follow another scale or crop of the images"
            )
    return faults


def _bev_faults(reading: Mapping[str, str], bev: BevPair) -> list[str]:
    if not reading:
        return []
    faults = []
    own, wanted = bev.student, bev.teacher
    if (own.extent_m, own.frame) != (wanted.extent_m, wanted.frame):
        faults.append(
            f"BEV maps: the student's covers {own.extent_m} ({own.frame} frame), the teacher's"
            f" {wanted.extent_m} ({wanted.frame} frame), in metres"
        )
    lifting = [name for name, bev_map in reading.items() if bev_map != "raw"]
    if lifting and bev.doublings is None:
        faults.append(
            f"{', '.join(lifting)}: a BEV map {own.shape} cannot be lifted to {wanted.shape}: sides must be"
            " equal or 2, 4, … times"
        )
    raw = [name for name, bev_map in reading.items() if bev_map == "raw"]
    if raw and own.shape[0] != wanted.shape[0]:
        faults.append(
            f"{', '.join(raw)}: the student's BEV map has {own.shape[0]} channels, the teacher's"
            f" {wanted.shape[0]}; only a map of equal width can be compared as it is: set bev_map='generated'"
        )
    return faults
