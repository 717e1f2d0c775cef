"""A training's real step: the project's model, optimiser wrapper and batches, without the loop around."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from torch.utils.data._utils.pin_memory import pin_memory

from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from camera3d.logs import quiet_mmengine
from gpu_stages.materials import Materials
from train.distillers.config import DistillerConfig
from train.engine.data import train_loader
from train.engine.finite import read_at_once
from train.engine.optimising import with_amp
from train.engine.options import DistillOptions
from train.engine.targets import target_setting

ALONE, LIVE = "student alone", "live_fd"
SAMPLES = 2  # loaded once; a larger batch has them several times


@dataclass
class Trainee:
    """What takes steps.

    Attributes:
        samples: on the host, as a worker hands them out.
        load_seconds: of one sample, the second of its kind, in one process.
    """

    model: nn.Module
    optim: OptimWrapper
    samples: list
    collate: object
    load_seconds: float
    device: torch.device

    def batch(self, size: int) -> dict:
        """So many samples, pinned where there is a GPU."""
        samples = list(itertools.islice(itertools.cycle(self.samples), size))
        batch = self.collate(samples)
        return pin_memory(batch) if self.device.type == "cuda" else batch

    def step(self, batch: dict) -> dict[str, float]:
        """As mmengine's loop and our hooks take it: to the device, forward, backward, checked, logged."""
        return read_at_once(self.model.train_step(batch, self.optim))


def trainee(materials: Materials, name: str, source: str, amp: str | None = None) -> Trainee:
    """A student of a distillation's config.

    Args:
        source: ALONE, LIVE, or the profile of a store.
        amp: None, "fp16" or "bf16".
    """
    path, where = materials.config(name), materials.scenes
    config = load_config(path)
    teacher = Path(config.teacher).stem
    materials.config(teacher)  # beside it, where its own `teacher` looks for it
    index = materials.index.select(list(materials.index.scene_names)[:1])
    device = torch.device(materials.context.device)
    torch.manual_seed(0)
    model = build_detector(config)
    with quiet_mmengine():
        model.init_weights()
    transforms = ()
    if source != ALONE:
        cached = source != LIVE
        options = DistillOptions(
            config=str(path),
            dataroot=where.dataroot,
            version=where.version,
            split=where.split,
            work_dir="",
            cache=str(materials.store(teacher, source)) if cached else None,
            teacher_source="cache" if cached else LIVE,
            teacher_checkpoint=str(materials.checkpoint(teacher)),
        )
        chosen = DistillerConfig.from_config(config)
        setting = target_setting(config, chosen, options, index, model, device)
        transforms = setting.transforms
        model = setting.distiller(config, chosen, model)
    model.to(device).train()
    with quiet_mmengine():
        optim = build_optim_wrapper(model, with_amp(config.optim_wrapper, amp, device))
    loader = train_loader(
        config, index, where.dataroot, batch_size=1, workers=0, seed=0, transforms=transforms
    )
    samples, seconds = [], []
    for row in range(min(SAMPLES, len(loader.dataset))):
        start = time.perf_counter()
        samples.append(loader.dataset[row])
        seconds.append(time.perf_counter() - start)
    return Trainee(model, optim, samples, loader.collate_fn, seconds[-1], device)
