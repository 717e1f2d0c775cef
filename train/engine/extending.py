"""A training that gets more epochs than it was begun with: its learning rate follows the new length."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from mmengine.optim import _ParamScheduler
from torch.optim import Optimizer

from camera3d.errors import ConfigInvalid

EPOCHS_FACT = "train_cfg.max_epochs"


def require_more(checkpoint: str, done: int, epochs: int) -> None:
    """Raise ConfigInvalid when a checkpoint has as many epochs as are asked for, or more."""
    if done >= epochs:
        raise ConfigInvalid(
            f"--epochs {epochs}: {checkpoint} has {done} epochs behind it. Give a larger number to extend the"
            " training, or leave --epochs out."
        )


def rewound(optimizer: Optimizer) -> None:
    """Set the rate of every group to what it was before any schedule changed it."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]


def replayed(schedules: Sequence[_ParamScheduler], steps: int, epochs: int, steps_an_epoch: int) -> None:
    """Take fresh schedules, one after the other as a training does, to where they are after this many steps.

    Args:
        epochs: that have ended. A checkpoint of the last step of an epoch is from before its end.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no step of the optimiser stands between those of the schedules
        for step in range(1, steps + 1):
            for schedule in schedules:
                if not schedule.by_epoch:
                    schedule.step()
            if step % steps_an_epoch == 0 and step <= epochs * steps_an_epoch:
                for schedule in schedules:
                    if schedule.by_epoch:
                        schedule.step()


def told(then: object, now: int, before: float, after: float) -> str:
    """What the log says of it."""
    return (
        f"extended: {then} epochs then, {now} now. From here on the learning rate is that of a schedule of"
        f" {now} epochs: {before:.3g} then, {after:.3g} now. Steps that a config gives by number, such as"
        " milestones, stay where they are. The weights will not be those of a training that had"
        f" {now} epochs from its start"
    )
