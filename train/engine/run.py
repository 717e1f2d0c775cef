"""The trainings: a detector alone, a student with a teacher's targets, a head on a store's maps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.logging import print_log
from torch import nn
from torch.utils.data import DataLoader

from camera3d.checkpoint import read_state_dict
from camera3d.data import DatasetChoice, ImagePipeline, SplitIndex
from camera3d.detectors import Detector
from camera3d.detectors.builder import build_detector, draw_weights
from camera3d.devices import checked_device, process_group, told
from camera3d.errors import CheckpointMismatch
from train.distillation_head import append_layer, head_setting
from train.distillers.config import DistillerConfig
from train.engine.augmenting import inputs_of, require_augmentable
from train.engine.data import require_images, train_loader, val_loader
from train.engine.dry_run import dry_run
from train.engine.kernels import fast_products, repeatable
from train.engine.log_lines import head, weights_of_terms
from train.engine.options import NO_SPLIT, DistillOptions, HeadOptions, TrainOptions
from train.engine.resuming import run_facts
from train.engine.runner import build_runner, require_schedule
from train.engine.segments import history_of
from train.engine.stopping import stops_told
from train.engine.targets import target_setting
from train.engine.work_dir import require_free, work_folder


def train_detector(options: TrainOptions) -> Path | str:
    """Train a detector on the ground truth alone; returns its exported weights, or what a dry run found.

    Raises Camera3DError.
    """
    config = options.load_config()
    ImagePipeline.from_config(config.inputs)
    with (
        repeatable(config.get("deterministic", False)),
        process_group(told(checked_device(options.device))) as device,
    ):
        index, validation = indices(config, options)
        detector = initial_detector(config, options)
        if config.get("distiller") is not None:
            print_log(
                f"{options.config} is for a distillation: here its student is trained on the ground truth"
                " alone. train/distill_from_cache.py distils.",
                "current",
                level=logging.WARNING,
            )
        return _train(detector, config, options, index, validation, device, targets="none")


def distill(options: DistillOptions) -> Path | str:
    """Train a student with a teacher's targets; returns its exported weights, or what a dry run found.

    Everything that can be told before the first step is.

    Raises:
        CacheError, Camera3DError: something the user can put right.
    """
    config = options.load_config()
    chosen = DistillerConfig.from_config(config)
    ImagePipeline.from_config(config.inputs)
    with (
        repeatable(config.get("deterministic", False)),
        process_group(told(checked_device(options.device))) as device,
    ):
        index, validation = indices(config, options)
        student = initial_detector(config, options)
        setting = target_setting(config, chosen, options, index, student, device)
        # A live teacher has drawn its first weights by now: the terms' own layers must not depend on that.
        torch.manual_seed(options.seed + 1)
        model = setting.distiller(config, chosen, student)
        return _train(
            model,
            config,
            options,
            setting.index,
            validation,
            device,
            targets=setting.name,
            transforms=setting.transforms,
            told={**setting.told, "terms": weights_of_terms(chosen)},
        )


def train_head(options: HeadOptions) -> Path | str:
    """Train a distillation head on the BEV maps of a store, and write what it says there as a layer.

    Returns the layer's place, or what a dry run found. Everything that can be told before the first step is.

    Raises:
        CacheError, Camera3DError: something the user can put right.
    """
    config = options.load_config()
    with (
        repeatable(config.get("deterministic", False)),
        process_group(told(checked_device(options.device))) as device,
    ):
        setting = head_setting(config, options)
        head = initial_detector(setting.config, options)
        done = _train(
            head,
            setting.config,
            options,
            setting.index,
            None,
            device,
            targets=setting.reader.digest,
            make_loader=setting.loader,
            sees_images=False,
            told=setting.told,
        )
        if options.dry_run:
            return f"{done}\n{setting.layer_told()}"
        barrier()  # the first process has exported the weights
        head.load_state_dict(read_state_dict(done))
        return append_layer(head, setting, options, device)


def indices(config: Config, options: TrainOptions) -> tuple[SplitIndex, SplitIndex | None]:
    """The frames to train and to evaluate on."""
    dataset = DatasetChoice.from_config(config)
    split, val_split = options.split, options.val_split
    if split is None or val_split is None:
        pair = dataset.default_splits(options.dataroot, options.version)
        split, val_split = split or pair[0], val_split or pair[1]
    index = dataset.index(options.dataroot, options.version, split)
    if val_split == NO_SPLIT:
        return index, None
    return index, dataset.index(options.dataroot, options.version, val_split)


def initial_detector(config: Config, options: TrainOptions) -> Detector:
    """A detector with random weights, and those of `init_from` that fit.

    Raises ConfigInvalid: its history or its augmentation cannot be.
    """
    torch.manual_seed(options.seed)
    detector = build_detector(config)
    detector.history = history_of(config, detector)
    require_augmentable(config, detector)
    draw_weights(detector)
    loaded = set() if options.init_from is None else load_fitting(detector, options.init_from)
    # By the keys of its checkpoints, which may be other ones than its modules' names.
    weights = detector.state_dict(keep_vars=True).items()
    frozen = [
        name for name, weight in weights if isinstance(weight, nn.Parameter) and not weight.requires_grad
    ]
    random = [name for name in frozen if "backbone." in name and name not in loaded]
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


def _train(
    model: nn.Module,
    config: Config,
    options: TrainOptions,
    index: SplitIndex,
    validation: SplitIndex | None,
    device: torch.device,
    *,
    targets: str,
    transforms: Sequence[Callable] = (),
    make_loader: Callable[..., DataLoader] = train_loader,
    sees_images: bool = True,
    told: Mapping[str, str] | None = None,
) -> Path | str:
    require_schedule(config)
    if options.dry_run:
        require_free(options.work_dir, resume=options.resume)
    folder = nullcontext() if options.dry_run else work_folder(options.work_dir, resume=options.resume)
    with stops_told(options.work_dir), folder, fast_products(device):
        if options.check_images:
            require_images(options.dataroot, index, validation)
        given = config.get("train_dataloader", {})
        loader = make_loader(
            config,
            index,
            options.dataroot,
            batch_size=options.batch_size or given.get("batch_size", 1),
            workers=given.get("num_workers", 4) if options.workers is None else options.workers,
            seed=options.seed,
            inputs=inputs_of(model),
            transforms=transforms,
        )
        said = head(
            config,
            told=told or {},
            model=model,
            index=index,
            validation=validation,
            steps=len(loader),
            batch_size=loader.batch_size,
            device=device,
        )
        if options.dry_run:
            seen = (index, validation) if sees_images else ()
            return dry_run(said, model, config, options, loader, seen, device)
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
            extend=options.epochs is not None,
        )
        print_log(said, "current")
        runner.train()
        return Path(options.work_dir) / "last.pth"
