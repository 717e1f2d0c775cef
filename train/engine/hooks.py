"""Hooks that mmengine lacks: draws that a resumed run repeats, and exported students."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from train.engine.averaging import kept_detector
from train.engine.export import export, plain_detector


@HOOKS.register_module()
class SeedEachStep(Hook):
    """Seed dropout, grid mask and feature masks by run seed, step and rank.

    A run that was killed and resumed then draws what it would have drawn, and no random state of any rank
    has to be saved.
    """

    priority = "VERY_HIGH"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_iter(self, runner, batch_idx: int, data_batch: object = None) -> None:
        """Called by mmengine before each step."""
        words = np.random.SeedSequence([self.seed, runner.iter, get_rank()]).generate_state(1)
        seed = int(words[0])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the grid mask draws from numpy's global generator
        torch.manual_seed(seed)


@HOOKS.register_module()
class EndHistories(Hook):
    """Carry no state into a step from which a run may be resumed, nor out of one that was left out.

    To carry one that no sample looks at leaves the losses as they are, but not the gradients' last bits.

    Args:
        every: a run may be resumed after multiples of this many steps, see `resumable_steps` of the samplers.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def before_train_iter(self, runner, batch_idx: int, data_batch: object = None) -> None:
        """Called by mmengine before each step."""
        if runner.iter % self.every == 0:
            plain_detector(runner.model).history.forget()

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """A state may be what was not finite."""
        if runner.optim_wrapper.verdict not in (None, "finite"):
            plain_detector(runner.model).history.forget()


@HOOKS.register_module()
class ExportStudent(Hook):
    """Keep `last.pth` and, by NDS or mAP, `best.pth` as plain detectors beside the checkpoints."""

    priority = "LOWEST"

    def __init__(self, interval: int) -> None:
        self.interval = interval

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """`last.pth` with every checkpoint."""
        if self.every_n_train_iters(runner, self.interval):
            self._export(runner, "last.pth")

    def after_train(self, runner) -> None:
        """`last.pth` at the end, also of a run that had no step left to do when it was resumed."""
        self._export(runner, "last.pth")

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """`best.pth` when no evaluation before was better; a resumed run knows the best so far.

        The first of the metrics decides.
        """
        if not metrics:
            return
        name, value = next(iter(metrics.items()))
        hub, key = runner.message_hub, f"best_{name.lower()}"
        if value > hub.runtime_info.get(key, -1.0):
            hub.update_info(key, value)
            self._export(runner, "best.pth")

    @staticmethod
    def _export(runner, name: str) -> None:
        if is_main_process():
            export(kept_detector(runner), Path(runner.work_dir) / name)
