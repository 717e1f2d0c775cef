"""From options, configs and a student to the targets of a training: checked, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from mmengine.config import Config

from cache_schema.detections import DETECTION_SCORES
from cache_schema.fingerprint import digest
from cache_schema.layers import open_layer
from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, SplitIndex, streaming_frames
from camera3d.data.augmentation import Augmentation
from camera3d.data.datasets import COCO
from camera3d.detectors import Detector
from camera3d.detectors.builder import build_detector, load_config
from camera3d.errors import ConfigInvalid
from camera3d.files import sha256_of
from train.distillers import Distiller, build_distiller
from train.distillers.areas import DrawAreas
from train.distillers.compared import ComparedMaps
from train.distillers.config import DistillerConfig
from train.distillers.distiller import TargetSource
from train.distillers.fit import area_artist, compared_maps, target_warp, wanted_arrays
from train.engine.augmenting import require_same_moves
from train.engine.options import SOURCES, DistillOptions
from train.targets import (
    CachedTargets,
    CacheSource,
    DistortedLiveSource,
    LiveSource,
    TargetLayout,
    check_areas,
    check_store,
)
from train.targets.checks import covered, expectation, teacher_config_path
from train.targets.confidence import check_confidence
from train.targets.description import TeacherDescription


@dataclass(frozen=True)
class TargetSetting:
    """Where a distillation's targets come from.

    Attributes:
        name: a store's fingerprint, or the live teacher's weights.
        index: the frames that have targets.
        transforms: of the training's dataset.
        told: about store and teacher, for the head of the log.
    """

    name: str
    index: SplitIndex
    teacher: TeacherDescription
    maps: ComparedMaps
    source: TargetSource
    transforms: Sequence[Callable] = ()
    told: Mapping[str, str] = field(default_factory=dict)

    def distiller(self, config: Config, chosen: DistillerConfig, student: Detector) -> Distiller:
        """A distiller around a student that has its initial weights. Raises as `build_distiller`."""
        return build_distiller(
            config, chosen, student=student, teacher=self.teacher, maps=self.maps, source=self.source
        )


def target_setting(
    config: Config,
    chosen: DistillerConfig,
    options: DistillOptions,
    index: SplitIndex,
    student: Detector,
    device: torch.device,
) -> TargetSetting:
    """The targets that the options name. Raises CacheError, Camera3DError: see the store and the checks."""
    if options.teacher_source == "cache":
        return _cached(config, chosen, options, index, student)
    return _live(config, chosen, options, index, student, device)


def from_store(
    config: Config,
    chosen: DistillerConfig,
    student: Detector,
    reader: TargetReader,
    index: SplitIndex,
    layer: TargetReader | None = None,
) -> TargetSetting:
    """The targets of an open store, and of its layer where there is one.

    Raises TargetsUnfit when it does not go with student and terms.
    """
    teacher = TeacherDescription.of_store(reader, layer)
    layer_spec = None if layer is None else layer.spec
    maps = compared_maps(config, chosen, student.output_specs(tuple(config.inputs.pad_hw)), teacher)
    wanted = wanted_arrays(chosen, maps, teacher)
    whole = tuple(n for n, needs in chosen.needs.items() if needs.whole_maps)
    check_store(reader.spec, wanted, whole, layer_spec)
    names = dict.fromkeys(name for term in wanted.values() for name in term)
    layout = TargetLayout.of_store(reader.spec, layer_spec)
    warp, artist = target_warp(config, maps, teacher), area_artist(chosen, maps, teacher)
    transforms = (CachedTargets(reader, names, layer), DrawAreas(artist, layout, warp))
    name = digest(reader.spec) + ("" if layer is None else f", layer {digest(layer.spec)}")
    return TargetSetting(name, index, teacher, maps, CacheSource(layout, warp), transforms)


def _cached(
    config: Config,
    chosen: DistillerConfig,
    options: DistillOptions,
    index: SplitIndex,
    student: Detector,
) -> TargetSetting:
    if options.cache is None:
        raise ConfigInvalid("--cache: name the store, or choose --teacher-source live")
    path = teacher_config_path(config)
    checkpoint = None if options.teacher_checkpoint is None else sha256_of(options.teacher_checkpoint)
    expected = expectation(config, index, load_config(path) if path else None, checkpoint)
    reader = TargetReader(options.cache, expect=expected, expect_digest=options.expect_digest)
    index = covered(index, reader, allow_partial=options.allow_partial)
    name = options.layer or config.get("cache_layer")
    layer = None if name is None else open_layer(reader, name)
    setting = from_store(config, chosen, student, reader, index, layer)
    heatmap = any(needs.heatmap for needs in chosen.needs.values())
    augmentation = Augmentation.from_config(config)
    for spec in (reader.spec, *([] if layer is None else [layer.spec])):
        check_areas(spec, vars(chosen.areas), heatmap=heatmap, augmentation=augmentation)
    if terms := chosen.reading_confidence:
        tokens = [token.decode() for token in index.columns["sample_token"].tolist()]
        detects = layer is not None and any(a.name == DETECTION_SCORES for a in layer.spec.arrays)
        check_confidence(layer if detects else reader, tokens, terms, min_score=chosen.areas.min_score)
    told = told_of_store(reader)
    if layer is not None:
        told["layer"] = f"{name}, {layer.spec.teacher.detector}, digest {layer.digest[:12]}"
    return replace(setting, told=told)


def told_of_store(reader: TargetReader) -> dict[str, str]:
    """What a log says about a store and the teacher that made it."""
    spec = reader.spec
    sealed = "not sealed" if reader.digest is None else f"digest {reader.digest[:12]}"
    weights = spec.teacher.checkpoint_sha256
    made = (
        f"UNTRAINED, seed {spec.teacher.random_seed}" if weights is None else f"weights sha256 {weights[:12]}"
    )
    return {
        "store": f"{reader.path}, profile {spec.profile}, {sealed}",
        "teacher": f"{spec.teacher.detector}, {made}",
    }


def _live(
    config: Config,
    chosen: DistillerConfig,
    options: DistillOptions,
    index: SplitIndex,
    student: Detector,
    device: torch.device,
) -> TargetSetting:
    if options.teacher_source not in SOURCES:
        raise ConfigInvalid(f"--teacher-source {options.teacher_source}: one of {', '.join(SOURCES)}")
    if options.cache is not None or options.allow_partial or options.expect_digest is not None:
        raise ConfigInvalid(
            f"--teacher-source {options.teacher_source} reads no store: leave --cache, --allow-partial and"
            " --expect-digest out"
        )
    if options.teacher_source == "live_fd" and config.get("history", "queue") == "stream":
        raise ConfigInvalid(
            "--teacher-source live_fd shows the teacher the student's queue, and with history='stream' there"
            " is none: take a cache, or --teacher-source live"
        )
    if options.teacher_source == "live_fd" and index.dataset == COCO:
        raise ConfigInvalid(
            "--teacher-source live_fd enlarges the student's images, and pictures have borders of their own:"
            " take a cache, or --teacher-source live"
        )
    if options.layer is not None or config.get("cache_layer") is not None:
        raise ConfigInvalid(
            f"--teacher-source {options.teacher_source} reads no store, and a layer is one of a store: leave"
            " --layer, or cache_layer of the config, out"
        )
    path = teacher_config_path(config)
    if path is None or options.teacher_checkpoint is None:
        raise ConfigInvalid(
            f"--teacher-source {options.teacher_source} runs the teacher: give --teacher-checkpoint, and a"
            " config that says `teacher = <config file>`"
        )
    teacher_config = load_config(path)
    teacher = build_detector(teacher_config)
    load_official(teacher, options.teacher_checkpoint)
    description = TeacherDescription.of_detector(teacher, teacher_config)
    maps = compared_maps(config, chosen, student.output_specs(tuple(config.inputs.pad_hw)), description)
    teacher.to(device)
    pipeline = ImagePipeline.from_config(teacher_config.inputs)
    name = f"{options.teacher_source} {sha256_of(options.teacher_checkpoint)}"
    told = {"store": "none", "teacher": f"{path}, {options.teacher_checkpoint}, {options.teacher_source}"}
    if options.teacher_source == "live":
        warp = target_warp(config, maps, description)
        live = LiveSource(teacher, streaming_frames(index, pipeline, options.dataroot), warp)
        return TargetSetting(name, index, description, maps, live, told=told)
    own = ImagePipeline.from_config(config.inputs)
    ratios = {t / s for t, s in zip(pipeline.pad_hw, own.pad_hw, strict=True)} | {pipeline.scale / own.scale}
    if len(ratios) > 1 or (own.mean, own.std, own.to_rgb) != (pipeline.mean, pipeline.std, pipeline.to_rgb):
        raise ConfigInvalid(
            f"live_fd enlarges the student's images for the teacher: scale, padding and normalisation of"
            f" {config.filename} and {path} must differ by one factor only; they are {own.to_dict()} and"
            f" {pipeline.to_dict()}"
        )
    require_same_moves(config, student, teacher)
    source = DistortedLiveSource(teacher, pipeline.pad_hw)
    return TargetSetting(name, index, description, maps, source, told=told)
