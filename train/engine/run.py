"""The two trainings: a detector alone, and a student with a teacher's targets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from torch import nn

from cache_schema.fingerprint import digest
from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official, read_state_dict
from camera3d.data import ImagePipeline, NuScenesIndex, StreamingFrames, load_or_build_index
from camera3d.detectors.bevformer.detector import BEVFormer
from camera3d.detectors.builder import build_staged_detector, load_config
from camera3d.errors import CheckpointMismatch, ConfigInvalid
from train.distillers import build_distiller
from train.distillers.config import DistillerConfig
from train.distillers.distiller import TargetSource
from train.distillers.fit import level_pairs
from train.engine.checkpoints import sha256_of
from train.engine.data import default_splits, train_loader, val_loader
from train.engine.devices import process_group
from train.engine.logs import quiet_mmengine
from train.engine.options import NO_SPLIT, TrainOptions
from train.engine.resuming import run_facts
from train.engine.runner import build_runner
from train.engine.work_dir import work_folder
from train.targets import CachedTargets, TargetLayout, check_areas, check_store
from train.targets.checks import covered, expectation, teacher_config_path
from train.targets.confidence import check_confidence
from train.targets.description import TeacherDescription
from train.teachers import CacheSource, DistortedLiveSource, LiveSource

SOURCES = ("cache", "live", "live_fd")


@dataclass(frozen=True, kw_only=True)
class DistillOptions(TrainOptions):
    """One distillation.

    Attributes:
        cache: the store; needed when `teacher_source` is `cache`.
        teacher_source: cache, live or live_fd.
        teacher_checkpoint: weights of a live teacher; with a cache, what the store must have been made of.
        allow_partial: train on the scenes that the store holds.
        expect_digest: of the store, or its first 12 digits or more.
    """

    cache: str | None = None
    teacher_source: str = "cache"
    teacher_checkpoint: str | None = None
    allow_partial: bool = False
    expect_digest: str | None = None


@dataclass(frozen=True)
class TargetSetting:
    """Where a distillation's targets come from.

    Attributes:
        name: a store's fingerprint, or the live teacher's weights.
        index: the frames that have targets.
    """

    name: str
    index: NuScenesIndex
    teacher: TeacherDescription
    source: TargetSource
    transforms: Sequence[Callable] = ()


def train_detector(options: TrainOptions) -> Path:
    """Train a detector on the ground truth alone; returns its exported weights. Raises Camera3DError."""
    config = options.load_config()
    ImagePipeline.from_config(config.inputs)
    with process_group() as device:
        index, validation = indices(options)
        detector = initial_detector(config, options)
        return _train(detector, config, options, index, validation, device, targets="none")


def distill(options: DistillOptions) -> Path:
    """Train a student with a teacher's targets; returns its exported weights.

    Everything that can be told before the first step is.

    Raises:
        CacheError, Camera3DError: something the user can put right.
    """
    config = options.load_config()
    chosen = DistillerConfig.from_config(config)
    ImagePipeline.from_config(config.inputs)
    with process_group() as device:
        index, validation = indices(options)
        student = initial_detector(config, options)
        setup = _cached if options.teacher_source == "cache" else _live
        setting = setup(config, chosen, options, index, student, device)
        # A live teacher has drawn its first weights by now: the terms' own layers must not depend on that.
        torch.manual_seed(options.seed + 1)
        model = build_distiller(
            config, chosen, student=student, teacher=setting.teacher, source=setting.source
        )
        return _train(
            model,
            config,
            options,
            setting.index,
            validation,
            device,
            targets=setting.name,
            transforms=setting.transforms,
        )


def indices(options: TrainOptions) -> tuple[NuScenesIndex, NuScenesIndex | None]:
    """The frames to train and to evaluate on."""
    split, val_split = options.split, options.val_split
    if split is None or val_split is None:
        pair = default_splits(options.dataroot, options.version)
        split, val_split = split or pair[0], val_split or pair[1]
    index = load_or_build_index(options.dataroot, options.version, split)
    if val_split == NO_SPLIT:
        return index, None
    return index, load_or_build_index(options.dataroot, options.version, val_split)


def initial_detector(config: Config, options: TrainOptions) -> BEVFormer:
    """A detector with random weights, and those of `init_from` that fit."""
    torch.manual_seed(options.seed)
    detector = build_staged_detector(config)
    with quiet_mmengine():
        detector.init_weights()
    loaded = set() if options.init_from is None else load_fitting(detector, options.init_from)
    frozen = [name for name, weight in detector.named_parameters() if not weight.requires_grad]
    random = [name for name in frozen if name.startswith("img_backbone.") and name not in loaded]
    if random and not options.resume:
        print_log(
            f"{len(random)} frozen weights of the image backbone ({random[0]}, …) are random and stay so:"
            " give --init-from a checkpoint that has them, such as the one the official training starts from",
            "current",
            level=logging.WARNING,
        )
    return detector.train()


def load_fitting(detector: nn.Module, checkpoint: str | Path) -> set[str]:
    """Load every weight whose key and shape fit; returns their keys. Raises CheckpointMismatch at none."""
    given, own = read_state_dict(checkpoint), detector.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
    if not fitting:
        raise CheckpointMismatch(f"{checkpoint} has no weight that fits the detector ({len(own)} entries)")
    detector.load_state_dict(fitting, strict=False)
    print_log(f"{checkpoint}: {len(fitting)} of the detector's {len(own)} weights loaded", "current")
    return set(fitting)


def _cached(
    config: Config,
    chosen: DistillerConfig,
    options: DistillOptions,
    index: NuScenesIndex,
    student: BEVFormer,
    device: torch.device,
) -> TargetSetting:
    if options.cache is None:
        raise ConfigInvalid("--cache: name the store, or choose --teacher-source live")
    path = teacher_config_path(config)
    checkpoint = None if options.teacher_checkpoint is None else sha256_of(options.teacher_checkpoint)
    expected = expectation(config, index, load_config(path) if path else None, checkpoint)
    reader = TargetReader(options.cache, expect=expected, expect_digest=options.expect_digest)
    index = covered(index, reader, allow_partial=options.allow_partial)
    teacher = TeacherDescription.of_store(reader)
    pairs = level_pairs(chosen, student.feature_maps(tuple(config.inputs.pad_hw)), teacher)
    wanted = chosen.arrays(pairs)
    whole = tuple(name for name, needs in chosen.needs.items() if needs.whole_maps)
    check_store(reader.spec, wanted, whole)
    check_areas(reader.spec, vars(chosen.areas), heatmap="bev_heatmap" in chosen.terms)
    if terms := chosen.reading_confidence:
        tokens = [token.decode() for token in index.columns["sample_token"].tolist()]
        areas = chosen.areas
        check_confidence(reader, tokens, terms, min_score=areas.min_score, at_most=areas.at_most)
    names = dict.fromkeys(name for term in wanted.values() for name in term)
    source = CacheSource(TargetLayout.of_store(reader.spec))
    transforms = (CachedTargets(reader, names),)
    return TargetSetting(digest(reader.spec), index, teacher, source, transforms)


def _live(
    config: Config,
    chosen: DistillerConfig,
    options: DistillOptions,
    index: NuScenesIndex,
    student: BEVFormer,
    device: torch.device,
) -> TargetSetting:
    if options.teacher_source not in SOURCES:
        raise ConfigInvalid(f"--teacher-source {options.teacher_source}: one of {', '.join(SOURCES)}")
    if options.cache is not None or options.allow_partial or options.expect_digest is not None:
        raise ConfigInvalid(
            f"--teacher-source {options.teacher_source} reads no store: leave --cache, --allow-partial and"
            " --expect-digest out"
        )
    path = teacher_config_path(config)
    if path is None or options.teacher_checkpoint is None:
        raise ConfigInvalid(
            f"--teacher-source {options.teacher_source} runs the teacher: give --teacher-checkpoint, and a"
            " config that says `teacher = <config file>`"
        )
    teacher_config = load_config(path)
    teacher = build_staged_detector(teacher_config)
    load_official(teacher, options.teacher_checkpoint)
    description = TeacherDescription.of_detector(teacher, teacher_config)
    teacher.to(device)
    pipeline = ImagePipeline.from_config(teacher_config.inputs)
    name = f"{options.teacher_source} {sha256_of(options.teacher_checkpoint)}"
    if options.teacher_source == "live":
        live = LiveSource(teacher, StreamingFrames(index, pipeline, options.dataroot))
        return TargetSetting(name, index, description, live)
    own = ImagePipeline.from_config(config.inputs)
    ratios = {t / s for t, s in zip(pipeline.pad_hw, own.pad_hw, strict=True)} | {pipeline.scale / own.scale}
    if len(ratios) > 1 or (own.mean, own.std, own.to_rgb) != (pipeline.mean, pipeline.std, pipeline.to_rgb):
        raise ConfigInvalid(
            f"live_fd enlarges the student's images for the teacher: scale, padding and normalisation of"
            f" {config.filename} and {path} must differ by one factor only; they are {own.to_dict()} and"
            f" {pipeline.to_dict()}"
        )
    return TargetSetting(name, index, description, DistortedLiveSource(teacher, pipeline.pad_hw))


def _train(
    model: nn.Module,
    config: Config,
    options: TrainOptions,
    index: NuScenesIndex,
    validation: NuScenesIndex | None,
    device: torch.device,
    *,
    targets: str,
    transforms: Sequence[Callable] = (),
) -> Path:
    with work_folder(options.work_dir, resume=options.resume):
        given = config.get("train_dataloader", {})
        loader = train_loader(
            config,
            index,
            options.dataroot,
            batch_size=options.batch_size or given.get("batch_size", 1),
            workers=given.get("num_workers", 4) if options.workers is None else options.workers,
            seed=options.seed,
            transforms=transforms,
        )
        runner = build_runner(
            model,
            config,
            work_dir=options.work_dir,
            train=loader,
            validation=None if validation is None else val_loader(config, validation, options.dataroot),
            device=device,
            seed=options.seed,
            resume=options.resume,
            skip_nonfinite=options.skip_nonfinite,
            facts=run_facts(config, index, targets),
        )
        runner.train()
        return Path(options.work_dir) / "last.pth"
