"""mmengine's Runner for this project: quiet, with whole checkpoints, resumed without unpickling code."""

from __future__ import annotations

import copy
import io
import logging
import math
import os
import pickle
from collections.abc import Mapping
from contextlib import redirect_stdout
from difflib import get_close_matches
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger, print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from camera3d.checkpoint import harmless_globals, reason_of
from camera3d.errors import CheckpointMismatch, ConfigInvalid
from camera3d.files import replace_with
from camera3d.logs import quiet_mmengine, to_stderr
from train.engine import hooks, log_lines, loops  # noqa: F401  registered by name below
from train.engine.averaging import AverageOptions
from train.engine.checkpoints import chosen_checkpoint, remove_strays, write_digest
from train.engine.extending import EPOCHS_FACT, replayed, require_more, rewound, told
from train.engine.finite import require_finite_weights
from train.engine.optimising import with_amp
from train.engine.rate import StepSize, scaled
from train.engine.resuming import require_same_run


class TrainingRunner(Runner):
    """Weights come in initialised; checkpoints appear under their name when they are complete.

    Args:
        device: of this process.
        facts: what the run is made of; a checkpoint with other facts is refused.
        extend: whether a checkpoint may be of a run of other length, see extending.py.
        options: mmengine's.
    """

    def __init__(
        self, *, device: torch.device, facts: Mapping[str, str], extend: bool = False, **options
    ) -> None:
        self._device, self._facts, self._extend = device, dict(facts), extend
        self._schedules = copy.deepcopy(options["param_scheduler"])
        self._epochs_then: object = None
        super().__init__(**options)

    def _init_model_weights(self) -> None:
        """Nothing: the model holds what it is to start from, and data-parallel wrappers send it round."""

    def _log_env(self, env_cfg: dict) -> None:
        """The environment of a run is noise on a terminal; the config is in the work folder."""

    def build_logger(self, *args, **options) -> MMLogger:
        """See mmengine's, which writes to stdout: results go there, and nothing else."""
        logger = super().build_logger(*args, **options)
        to_stderr(logger)
        return logger

    def build_optim_wrapper(self, optim_wrapper: object) -> OptimWrapper:
        """See mmengine's, which tells about every parameter. Raises ConfigInvalid."""
        if isinstance(optim_wrapper, dict):
            warn_of_idle_rates(optim_wrapper, self.model)
        try:
            with quiet_mmengine():
                return super().build_optim_wrapper(optim_wrapper)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigInvalid(f"optim_wrapper {optim_wrapper} does not work: {error}") from error

    def get_hooks_info(self) -> str:
        """Likewise."""
        return "mmengine's defaults, finite steps, seeds by step, exported students"

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Data-parallel under torchrun, on GPUs and, which mmengine cannot, on CPUs.

        Every process starts a step with the first one's buffers: whoever evaluates, saves or resumes then has
        the same running statistics.
        """
        model = model.to(self._device)
        if not self.distributed:
            return model
        cuda = self._device.type == "cuda"
        return MMDistributedDataParallel(
            module=model,
            device_ids=[self._device.index] if cuda else None,
            broadcast_buffers=True,
            find_unused_parameters=self.cfg.get("find_unused_parameters", False),
        )

    def save_checkpoint(
        self, out_dir: str, filename: str, *args, meta: dict | None = None, **options
    ) -> None:
        """See mmengine's, which writes under the final name. Raises TrainingNotFinite."""
        require_finite_weights(self.model.state_dict().items(), f"checkpoint {filename}")
        if self.rank != 0:
            return
        meta = {**(meta or {}), "draws": self._draws()}
        path = Path(out_dir) / filename

        def write(partial: Path) -> None:
            super(TrainingRunner, self).save_checkpoint(
                str(partial.parent), partial.name, *args, meta=meta, **options
            )
            write_digest(partial, path)

        replace_with(path, write)
        remove_strays(out_dir)

    def load_or_resume(self) -> None:
        """See mmengine's, which trusts a file with a path that a killed run may have left empty."""
        if self._resume and not self._has_loaded:
            chosen = chosen_checkpoint(self.work_dir)
            self._has_loaded = True
            if chosen is not None:
                print_log(f"continues from {chosen}", "current")
                self.resume(str(chosen))

    def load_checkpoint(self, filename: str, *args, **options) -> dict:
        """See mmengine's. Raises ConfigInvalid when the checkpoint is another run's, CheckpointMismatch."""
        try:
            with redirect_stdout(io.StringIO()):  # it prints the name of the file
                checkpoint = super().load_checkpoint(filename, *args, **options)
        except pickle.UnpicklingError as error:
            raise CheckpointMismatch(f"{filename} cannot be read: {reason_of(error)}") from error
        then, now = checkpoint["meta"].get("draws", {}), self._draws()
        if self._extend and then.get(EPOCHS_FACT, now[EPOCHS_FACT]) != now[EPOCHS_FACT]:
            done = checkpoint["meta"]["iter"] // len(self.train_dataloader)
            require_more(filename, done, int(now[EPOCHS_FACT]))
            self._epochs_then = then[EPOCHS_FACT]
            then = {name: value for name, value in then.items() if name != EPOCHS_FACT}
        require_same_run(filename, then, now)
        return checkpoint

    def resume(self, filename: str, *args, **options) -> None:
        """See mmengine's. A run that is extended follows the schedule of its new length."""
        super().resume(filename, *args, **options)
        if self._epochs_then is None:
            return
        before = self._rate()
        rewound(self.optim_wrapper.optimizer)
        self.param_schedulers = self.build_param_scheduler(copy.deepcopy(self._schedules))
        replayed(self.param_schedulers, self.iter, self.epoch, len(self.train_dataloader))
        print_log(told(self._epochs_then, self.max_epochs, before, self._rate()), "current")

    def _rate(self) -> float:
        """The largest learning rate of a parameter."""
        return max(group["lr"] for group in self.optim_wrapper.optimizer.param_groups)

    def _draws(self) -> Mapping[str, object]:
        """What decides which frames a step sees, and what it makes of them."""
        loader = self.train_dataloader
        return {
            "seed": self.seed,
            "samples a step (of all processes)": loader.batch_size * self.world_size,
            **self._facts,
        }

    def train(self) -> nn.Module:
        """See mmengine's. Its own checkpoints hold its log's types, which weights_only must be told of."""
        with harmless_globals():
            return super().train()


def build_runner(
    model: nn.Module,
    config: Config,
    *,
    work_dir: str | Path,
    train: DataLoader,
    validation: DataLoader | None,
    device: torch.device,
    seed: int,
    resume: bool,
    skip_nonfinite: int,
    facts: Mapping[str, str],
    extend: bool = False,
) -> TrainingRunner:
    """A runner for a model that holds its initial weights.

    Args:
        config: with `optim_wrapper`, `param_scheduler`, `train_cfg` and `checkpoint_interval` as in
            configs/_base_/schedule_24ep.py.
        validation: frames to score on; None: no evaluation.
        resume: continue from the newest checkpoint in `work_dir`, when there is one.
        skip_nonfinite: see TrainOptions.
        facts: see `run_facts`.
        extend: let a checkpoint be of a run of other length.

    Raises ConfigInvalid when the schedule is missing or cannot be.
    """
    require_schedule(config)
    epochs, steps = config.train_cfg.max_epochs, len(train)
    accumulated = config.optim_wrapper.get("accumulative_counts", 1)
    # A checkpoint between two optimiser steps would lose the gradients gathered so far, and one within the
    # segments of a stream the states that their next frames need.
    resumable = math.lcm(accumulated, train.sampler.resumable_steps)
    interval = -(-config.get("checkpoint_interval", 1000) // resumable) * resumable
    evaluates = validation is not None
    average = AverageOptions.from_config(config)
    averages = [] if average is None else [{"type": "AverageStudent", "options": average}]
    wrapper, about_the_rate = scaled(config, StepSize(train.batch_size, get_world_size(), accumulated))
    runner = TrainingRunner(
        device=device,
        facts=facts,
        extend=extend,
        model=model,
        work_dir=str(work_dir),
        # mmengine keeps logs and curves by this name and the second; two runs of a config are not one.
        experiment_name=str(Path(work_dir).absolute()),
        train_dataloader=train,
        train_cfg={"type": "ExactEpochLoop", **config.train_cfg},
        optim_wrapper=with_amp(wrapper, config.get("amp"), device),
        param_scheduler=[until_the_end(s, epochs, epochs * steps) for s in config.param_scheduler],
        val_dataloader=validation,
        val_cfg={"type": "EvaluationLoop", "out_dir": str(Path(work_dir) / "validation")}
        if evaluates
        else None,
        val_evaluator=Evaluator([]) if evaluates else None,
        default_hooks={
            "checkpoint": {
                "type": "CheckpointHook",
                "by_epoch": False,
                "interval": interval,
                "max_keep_ckpts": 2,
            },
            "logger": {"type": "LoggerHook", "interval": config.get("log_interval", 50)},
        },
        custom_hooks=[
            {"type": "RequireFinite", "may_skip": skip_nonfinite},
            {"type": "SeedEachStep", "seed": seed},
            {"type": "EndHistories", "every": train.sampler.resumable_steps},
            *averages,
            {"type": "ExportStudent", "interval": interval},
        ],
        log_processor={"type": "StepLines", "terms": list((config.get("distiller") or {}).get("terms", ()))},
        visualizer={
            "type": "Visualizer",
            "vis_backends": [{"type": "LocalVisBackend"}, {"type": "TensorboardVisBackend"}],
        },
        # `deterministic` is seen to before CUDA starts, see kernels.py.
        randomness={"seed": seed},
        launcher="pytorch" if "RANK" in os.environ else "none",
        resume=resume,
        default_scope="mmdet3d",
        log_level="INFO",
        cfg=config,
    )
    runner.logger.info(about_the_rate)
    return runner


def require_schedule(config: Config) -> None:
    """Raise ConfigInvalid when a config has no optimiser, schedule or number of epochs."""
    missing = [n for n in ("optim_wrapper", "param_scheduler", "train_cfg") if n not in config]
    if missing:
        raise ConfigInvalid(
            f"config {config.filename or ''} does not define {', '.join(missing)}: add"
            " '../_base_/schedule_24ep.py' to its _base_"
        )
    if "max_epochs" not in config.train_cfg:
        raise ConfigInvalid(f"config {config.filename or ''} does not define train_cfg.max_epochs")


def warn_of_idle_rates(optim_wrapper: Mapping[str, object], model: nn.Module) -> None:
    """Say which rates are meant for parameters that the model does not have."""
    wanted = (optim_wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}
    names = [name for name, _ in model.named_parameters()]
    for key in wanted:
        if not any(key in name for name in names):
            modules = {part for name in names for part in name.split(".") if not part.isdigit()}
            near = get_close_matches(key, modules, n=1)
            end = f"; did you mean {near[0]}?" if near else ""
            line = f"paramwise_cfg.custom_keys.{key}: no parameter of the model has this in its name{end}"
            print_log(f"optim_wrapper.{line}", "current", level=logging.WARNING)


def until_the_end(scheduler: Config, epochs: int, steps: int) -> dict:
    """A schedule without an end lasts as long as the training."""
    given = dict(scheduler)
    by_epoch = given.get("by_epoch", True)
    if given["type"] == "CosineAnnealingLR" and "T_max" not in given:
        given["T_max"] = (epochs if by_epoch else steps) - given.get("begin", 0)
    return given
