"""Everything of a training but the training: what a first step needs is there, and nothing is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn
from torch.utils.data import DataLoader

from camera3d.data import SplitIndex, check_images
from camera3d.devices import is_first_process
from camera3d.errors import ConfigInvalid
from camera3d.logs import quiet_mmengine
from train.engine.optimising import with_amp
from train.engine.options import TrainOptions
from train.engine.runner import until_the_end

MOMENTS = 2  # what Adam keeps of every parameter
CHECKPOINTS = 3  # two are kept, and the next is written before the older goes


def dry_run(
    head: str,
    model: nn.Module,
    config: Config,
    options: TrainOptions,
    loader: DataLoader,
    indices: Sequence[SplitIndex | None],
    device: torch.device,
) -> str:
    """What a training with these options would do, of which student and targets are checked already.

    Args:
        head: of its log.
        indices: the frames to train and to evaluate on.

    Raises:
        ImagesBroken: of any of these frames.
        ConfigInvalid: the optimiser or its schedule cannot be built, or the disk has no room for checkpoints.
        CacheError, Camera3DError: the first sample cannot be read.
    """
    with quiet_mmengine():
        try:
            wrapper = build_optim_wrapper(model, with_amp(config.optim_wrapper, config.get("amp"), device))
            epochs, steps = config.train_cfg.max_epochs, len(loader)
            for schedule in config.param_scheduler:
                built = until_the_end(schedule, epochs, epochs * steps)
                given = {"optimizer": wrapper.optimizer, "epoch_length": steps}
                PARAM_SCHEDULERS.build(built, default_args=given)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise ConfigInvalid(f"optim_wrapper or param_scheduler does not work: {error}") from error
    room = require_room(model, options.work_dir, averaged=config.get("ema") is not None)
    images = 0
    if is_first_process():
        images = sum(check_images(options.dataroot, index.frames()) for index in indices if index is not None)
    loader.dataset.set_epoch(0)
    loader.dataset[next(iter(loader.sampler))]
    return f"{head}\n  images      {images:,}, all there\n  disk        {room}\ndry run: nothing was written"


def require_room(model: nn.Module, work_dir: str | Path, *, averaged: bool = False) -> str:
    """Bytes of the checkpoints and exports that a training keeps, and what is free. Raises ConfigInvalid.

    Args:
        averaged: whether checkpoints hold an average of the weights too.
    """
    learnt = sum(w.numel() * w.element_size() for w in model.parameters() if w.requires_grad)
    whole = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    needed = CHECKPOINTS * ((2 if averaged else 1) * whole + MOMENTS * learnt) + 2 * whole
    folder = Path(work_dir).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    told = f"checkpoints take {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
    if needed > free:
        raise ConfigInvalid(f"--work-dir {work_dir}: {told}. Make room, or give another folder.")
    return told
