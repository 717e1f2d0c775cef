"""The learning rate for as many samples as an optimiser step has."""

from __future__ import annotations

from dataclasses import dataclass

from mmengine.config import Config

from camera3d.errors import ConfigInvalid

KEYS = ("enable", "base_batch_size")
SWITCH = "--cfg-options auto_scale_lr.enable=False"


@dataclass(frozen=True)
class StepSize:
    """How many samples an optimiser step has.

    Attributes:
        batch_size: samples of a process and forward pass.
        accumulated: forward passes whose gradients are gathered before a step.
    """

    batch_size: int
    processes: int = 1
    accumulated: int = 1

    @property
    def samples(self) -> int:
        """Of all processes together."""
        return self.batch_size * self.processes * self.accumulated

    def __str__(self) -> str:
        parts = [f"{self.batch_size} a process", f"{self.processes} processes"]
        if self.accumulated > 1:
            parts.append(f"{self.accumulated} passes gathered")
        return f"{self.samples} samples a step ({' × '.join(parts)})"


def base_samples(config: Config) -> int | None:
    """The samples a step that the config's rate is meant for; None: the rate is for any number.

    Raises ConfigInvalid when `auto_scale_lr` cannot be.
    """
    scale = config.get("auto_scale_lr") or {}
    faults = [f"unknown entry {name}" for name in sorted(set(scale) - set(KEYS))]
    if not isinstance(scale.get("enable", False), bool):
        faults.append(f"enable: expected True or False, got {scale['enable']!r}")
    base = scale.get("base_batch_size")
    if scale.get("enable") and (type(base) is not int or base < 1):
        faults.append(f"base_batch_size: expected a whole number of samples, 1 or more, got {base!r}")
    if faults:
        raise ConfigInvalid(f"auto_scale_lr takes {' and '.join(KEYS)}: {'; '.join(faults)}")
    return base if scale.get("enable") else None


def rate_factor(config: Config, samples: int) -> float:
    """What the config's learning rate is multiplied by: in proportion to the samples a step."""
    base = base_samples(config)
    return 1.0 if base is None else samples / base


def scaled(config: Config, step: StepSize) -> tuple[dict, str]:
    """The config's `optim_wrapper` with the rate for such steps, and a line for the log.

    Raises ConfigInvalid: see `base_samples`; or there is no rate that could be scaled.
    """
    wrapper = config.optim_wrapper.to_dict()
    optimizer = wrapper.get("optimizer", {})
    base, rate = base_samples(config), optimizer.get("lr")
    if base is None:
        return wrapper, f"learning rate {rate or 'of torch itself'}, not scaled; {step}"
    if not isinstance(rate, int | float):
        raise ConfigInvalid(
            f"optim_wrapper.optimizer.lr: give the rate that auto_scale_lr scales, or {SWITCH}"
        )
    new = rate * rate_factor(config, step.samples)
    wrapper["optimizer"] = {**optimizer, "lr": new}
    if step.samples == base:
        return wrapper, f"learning rate {rate:g}, the config's: it is meant for {step}"
    return wrapper, (
        f"learning rate {new:g}: the config's {rate:g} is for {base} samples a step, and this run has {step}."
        f" {SWITCH} keeps the config's"
    )
