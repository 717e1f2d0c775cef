"""From a config and a teacher's description to a distiller: decides which part goes with which."""

from __future__ import annotations

from mmengine.config import Config
from mmengine.logging import print_log

from camera3d.detectors import Detector
from camera3d.detectors.query_based.bev_decoder import value_projections
from camera3d.errors import ConfigInvalid
from train.distillers.compared import BevPair, ComparedMaps
from train.distillers.config import DistillerConfig
from train.distillers.distiller import Distiller, TargetSource
from train.distillers.fit import area_artist, sampling_kind, start_weights
from train.distillers.terms import TERMS, TermContext
from train.losses import MaskedGenerator
from train.targets.description import TeacherDescription


def build_distiller(
    config: Config,
    chosen: DistillerConfig,
    *,
    student: Detector,
    teacher: TeacherDescription,
    maps: ComparedMaps,
    source: TargetSource,
) -> Distiller:
    """Put a distiller together around a student that has its initial weights.

    Args:
        maps: see `compared_maps`.

    Raises:
        TargetsUnfit: the student's head cannot start from the teacher's; lists every reason.
        ConfigInvalid: a term takes no such keyword.
    """
    artist = area_artist(chosen, maps, teacher)
    start = start_weights(config, chosen, student, teacher)
    if teacher.layer_head:
        projections = value_projections(teacher.layer_head)
    else:
        projections = student.sampling_projections(teacher.head)
    context = TermContext(
        maps=maps,
        sampling=sampling_kind(teacher),
        projections=tuple(projections),
        query_numbers=teacher.specs["query_boxes"].shape[-1] if "query_boxes" in teacher.specs else None,
    )
    terms = {}
    for name, options in chosen.terms.items():
        try:
            terms[name] = TERMS[name].build(context, **options)
        except (TypeError, ValueError) as error:
            raise ConfigInvalid(f"distiller.terms.{name}: {error}") from error
    student.load_state_dict(start, strict=False)
    if start:
        head = len(student.head_weights())
        print_log(f"{len(start)} of {head} weights of the head start from the teacher's", "current")
    return Distiller(
        student=student,
        terms=terms,
        # A part that no term uses would get no gradient, which data-parallel training refuses.
        bev_generator=_bev_generator(maps.bev, chosen) if artist.hidden_bev else None,
        maps=maps,
        artist=artist,
        source=source,
    )


def _bev_generator(bev: BevPair, chosen: DistillerConfig) -> MaskedGenerator:
    try:
        return MaskedGenerator(
            channels=bev.student.shape[0],
            teacher_channels=bev.teacher.shape[0],
            doublings=bev.doublings,
            mask_ratio=chosen.bev_mask_ratio,
        )
    except (TypeError, ValueError) as error:
        raise ConfigInvalid(f"distiller.bev_mask_ratio: {error}") from error
