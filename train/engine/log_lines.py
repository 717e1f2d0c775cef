"""What a training says: a head with everything that it is made of, then a line a step that fits a terminal.

All numbers go to TensorBoard and to the JSON lines in the work folder, whatever is shown.
"""

from __future__ import annotations

import platform
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.registry import LOG_PROCESSORS
from mmengine.runner import LogProcessor
from torch import nn

import cache_schema
from camera3d.config_values import keywords
from camera3d.data import SplitIndex
from camera3d.logs import CLOCK_WIDTH
from train.distillers.config import DistillerConfig
from train.distillers.terms import TERMS
from train.engine.rate import rate_factor

SHOWN_VERSIONS = ("torch", "mmengine", "mmcv", "mmdet", "mmdet3d")
FALLBACK_WIDTH = 100  # where nobody looks at a terminal


def head(
    config: Config,
    *,
    told: Mapping[str, str],
    model: nn.Module,
    index: SplitIndex,
    validation: SplitIndex | None,
    steps: int,
    batch_size: int,
    device: torch.device,
) -> str:
    """What a training is made of, a line for each.

    Args:
        told: of the store, the teacher and the terms, where there are any.
        steps: of an epoch, in each process.
    """
    weights = list(model.parameters())
    learnt = sum(weight.numel() for weight in weights if weight.requires_grad)
    world = get_world_size()
    validated = "none" if validation is None else f"{len(validation):,} of {validation.split}"
    rows = {
        "command": shlex.join(sys.argv),
        "config": str(config.filename),
        "versions": ", ".join(versions()),
        "device": f"{device}, {world} {'process' if world == 1 else 'processes'}",
        **told,
        "samples": f"{len(index):,} in {len(index.scene_rows):,} scenes of {index.split} ({index.version});"
        f" validation: {validated}",
        "steps": f"{config.train_cfg.max_epochs} epochs of {steps:,}, {batch_size * world} samples each",
        "parameters": f"{sum(w.numel() for w in weights):,}, of which {learnt:,} are trained",
        "learning rate": rates(config, batch_size * world),
    }
    return "\n".join(("training", *pairs(rows)))


def pairs(rows: Mapping[str, str]) -> list[str]:
    """Two columns, indented."""
    width = max(map(len, rows))
    return [f"  {name.ljust(width)}  {value}" for name, value in rows.items()]


def versions() -> list[str]:
    """Name and version of what decides the numbers."""
    found = [f"focalcache {cache_schema.__version__}", f"Python {platform.python_version()}"]
    for name in SHOWN_VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} unknown")
    return found


def rates(config: Config, samples: int) -> str:
    """Learning rate, its multipliers and schedule, and what else shapes a step.

    Args:
        samples: of a forward pass, over all processes.
    """
    wrapper = config.optim_wrapper
    optimizer = wrapper.optimizer
    factor = rate_factor(config, samples * wrapper.get("accumulative_counts", 1))
    rate = optimizer.get("lr")
    slower = (wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}
    parts = [f"{rate if factor == 1 or rate is None else f'{rate * factor:g}'} {optimizer.type}"]
    parts += [f"{key} × {given['lr_mult']:g}" for key, given in slower.items() if "lr_mult" in given]
    parts.append(" then ".join(schedule.type for schedule in config.param_scheduler))
    if wrapper.get("accumulative_counts", 1) > 1:
        parts.append(f"gradients of {wrapper.accumulative_counts} steps")
    parts.append(f"amp {config.get('amp')}")
    return ", ".join(parts)


def weights_of_terms(chosen: DistillerConfig) -> str:
    """Every term of a distillation with its weights, those of a config or else its own."""
    told = []
    for name, options in chosen.terms.items():
        known = keywords(TERMS[name]) or {}
        names = [key for key in known if key == "weight" or key.endswith("_weight")]
        values = (f"{key} {options.get(key, known[key].default):g}" for key in names)
        told.append(" ".join((name, *values)))
    return "; ".join(told) or "none, only a start from the teacher"


def step_line(
    step: int,
    steps: int,
    losses: Mapping[str, float],
    terms: Sequence[str],
    *,
    rate: float | None,
    eta_s: float | None,
    width: int,
) -> str:
    """One step: the loss, which share of it is detection and which each term's, learning rate and time left.

    Args:
        losses: every loss by name, their sum as `loss`; none after a step that was left out.
        width: columns; the smallest terms share an entry where there are too few.
    """
    total = losses.get("loss")
    shares: dict[str, float] = {}
    if total:
        for term in terms:
            own = [v for name, v in losses.items() if f"{name}_".startswith(f"loss_{term}_")]
            shares[term] = sum(own) / total
        shares = {"detection": 1 - sum(shares.values()), **shares} if shares else {}
    first = f"{step}/{steps} loss " + ("left out" if total is None else f"{total:.4g}")
    last = [] if rate is None else [f"lr {rate:.2g}"]
    if eta_s is not None:
        last.append(f"{timedelta(seconds=int(eta_s))} left")
    while True:
        line = "  ".join((first, *(f"{name} {share:.0%}" for name, share in shares.items()), *last))
        small = sorted((name for name in shares if name not in ("detection", "other")), key=shares.get)
        if len(line) <= width or not small:
            return line[:width]
        shares["other"] = shares.get("other", 0.0) + shares.pop(small[0])


@LOG_PROCESSORS.register_module()
class StepLines(LogProcessor):
    """mmengine's numbers, said in a line that fits a terminal. `terms` are those of the distillation."""

    def __init__(self, *, terms: Sequence[str] = (), **options: object) -> None:
        super().__init__(**options)
        self.terms = tuple(terms)

    def get_log_after_iter(self, runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """See LogProcessor."""
        tag, _ = super().get_log_after_iter(runner, batch_idx, mode)
        line = step_line(
            runner.iter + 1,
            runner.max_iters,
            {name: value for name, value in tag.items() if isinstance(value, int | float)},
            self.terms,
            rate=tag.get("lr"),
            eta_s=runner.message_hub.runtime_info.get("eta"),
            width=shutil.get_terminal_size((FALLBACK_WIDTH, 24)).columns - CLOCK_WIDTH,
        )
        return tag, line

    def get_log_after_epoch(self, runner, batch_idx: int, mode: str, *args, **options) -> tuple[dict, str]:
        """See LogProcessor."""
        tag, _ = super().get_log_after_epoch(runner, batch_idx, mode, *args, **options)
        scores = (f"{name.rpartition('/')[2]} {v:.4f}" for name, v in tag.items() if isinstance(v, float))
        kept = [score for score in scores if not score.startswith(("time ", "data_time "))]
        return tag, "  ".join((f"validation after epoch {runner.epoch}", *kept))
