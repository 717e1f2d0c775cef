"""An exponential moving average of the student's weights, which is scored and exported in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from mmdet.models.layers import ExpMomentumEMA
from mmengine.config import Config
from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.model import BaseAveragedModel, ExponentialMovingAverage
from mmengine.registry import HOOKS
from torch import nn

from camera3d.detectors import Detector
from camera3d.errors import ConfigInvalid
from train.engine.export import plain_detector

KEY = "student_average"  # in checkpoints


@dataclass(frozen=True, kw_only=True)
class AverageOptions:
    """`ema` of a config.

    Attributes:
        decay: how much of the average a step keeps.
        ramp_steps: the average of the first steps is a short one: step n keeps decay · (1 - exp(-n / ramp)),
            so that the weights that were drawn at random are soon forgotten. None: `decay` from the start.
    """

    decay: float = 0.999
    ramp_steps: int | None = 2000

    @classmethod
    def from_config(cls, config: Config) -> Self | None:
        """What `ema` says; None without."""
        given = config.get("ema")
        return None if given is None else cls(**given)

    def average(self, detector: nn.Module) -> BaseAveragedModel:
        """A copy of the detector that follows its weights and its running statistics."""
        options = {"momentum": 1 - self.decay, "update_buffers": True}
        if self.ramp_steps is None:
            return ExponentialMovingAverage(detector, **options)
        return ExpMomentumEMA(detector, gamma=self.ramp_steps, **options)


@HOOKS.register_module()
class AverageStudent(Hook):
    """Averages the student after every optimiser step that was taken, before checkpoints are written.

    Attributes:
        average: once the training has begun; `average.module` is the detector.
    """

    average: BaseAveragedModel

    def __init__(self, options: AverageOptions) -> None:
        self.options = options

    def before_run(self, runner) -> None:
        """From the initial weights on; a resumed run then loads its own average."""
        self.average = self.options.average(plain_detector(runner.model))

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Called by mmengine after each forward step."""
        if runner.optim_wrapper.verdict == "finite":
            self.average.update_parameters(plain_detector(runner.model))

    def before_val_epoch(self, runner) -> None:
        """Every process scores a part with the first one's statistics, which are also what is saved."""
        if get_world_size() > 1:
            for values in self.average.module.state_dict().values():
                broadcast(values)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """The average and how many steps it has seen go along."""
        checkpoint[KEY] = {name: values.cpu() for name, values in self.average.state_dict().items()}

    def after_load_checkpoint(self, runner, checkpoint: Mapping[str, object]) -> None:
        """Go on with the average of the run that is resumed. Raises ConfigInvalid when it had none."""
        if KEY not in checkpoint:
            raise ConfigInvalid(
                "cannot resume: the checkpoint holds no average of the weights, and `ema` is set. Leave it"
                " out (--cfg-options ema=None), or start anew in another work folder."
            )
        self.average.load_state_dict(checkpoint[KEY])


def kept_detector(runner) -> Detector:
    """The detector that is scored and exported: the averaged one where there is an average."""
    averages = (hook.average.module for hook in runner.hooks if isinstance(hook, AverageStudent))
    return next(averages, plain_detector(runner.model))
