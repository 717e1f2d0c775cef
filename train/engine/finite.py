"""A step whose loss or gradient is not finite is never taken: it stops the training, or is left out.

The decision costs no wait for the device of its own. Before an optimiser step the host reads one small
tensor, in place of the gradient's norm that mmengine reads there to log it; and the losses of a step are read
together, in place of one by one when they are logged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import Tensor, nn

from camera3d.errors import Camera3DError, shown

SKIPPED = "steps_skipped"  # in the message hub, and so in checkpoints


class TrainingNotFinite(Camera3DError):
    """A loss, a gradient or a weight is NaN or infinite.

    Attributes:
        on_every_rank: whether all processes raise this same error, so that one of them should tell it.
    """

    def __init__(self, message: str, *, on_every_rank: bool = False) -> None:
        super().__init__(message)
        self.on_every_rank = on_every_rank


class FiniteSteps:
    """Mixed into an OptimWrapper: only takes optimiser steps whose losses and gradients are finite.

    A gradient that overflows under a loss scaler is no fault: the scaler leaves the step out and lowers its
    scale. It is one when the scale has come down to 1, where nothing is left to lower.

    Attributes:
        verdict: on the optimiser step that the last `update_params` ended with; None when it only gathered
            gradients. The same in every process.
    """

    verdict: Literal["finite", "loss", "gradient"] | None = None
    _loss_at_fault: Tensor | None = None

    def update_params(self, loss: Tensor, *args, **options) -> None:
        """See OptimWrapper."""
        self.verdict = None
        at_fault = ~loss.detach().isfinite()
        # Of all the steps whose gradients are gathered; it stays on the device until the step.
        self._loss_at_fault = at_fault if self._loss_at_fault is None else self._loss_at_fault | at_fault
        super().update_params(loss, *args, **options)

    def step(self, **options) -> None:
        """See OptimWrapper. Nothing is changed by a step that is at fault."""
        scaler = getattr(self, "loss_scaler", None)
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        norm = self._clipped_norm()
        faults = torch.stack((self._loss_at_fault, ~norm.isfinite().to(self._loss_at_fault.device))).float()
        all_reduce(faults, "max")
        loss_at_fault, gradient_at_fault, norm = torch.cat((faults, norm.to(faults)[None])).tolist()
        self._loss_at_fault = None
        if loss_at_fault:
            self.verdict = "loss"
        elif gradient_at_fault and not (
            scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1
        ):
            self.verdict = "gradient"
        else:
            self.verdict = "finite"
            if self.clip_grad_kwargs and self.grad_name == "grad_norm":
                self.message_hub.update_scalar("train/grad_norm", norm)
            if scaler is None:
                self.optimizer.step(**options)
            else:
                scaler.step(self.optimizer, **options)
        if scaler is not None:
            scaler.update(self._scale_update_param)

    def _clipped_norm(self) -> Tensor:
        """The norm of all gradients before they are clipped, as the config wants it."""
        weights = [w for group in self.optimizer.param_groups for w in group["params"] if w.grad is not None]
        if self.clip_grad_kwargs and self.grad_name == "grad_norm":
            return self.clip_func(weights, **self.clip_grad_kwargs)
        norm = nn.utils.clip_grad_norm_(weights, math.inf)  # which clips nothing
        if self.clip_grad_kwargs:
            self.clip_func(weights, **self.clip_grad_kwargs)
        return norm


@dataclass(frozen=True)
class SeenStep:
    """One forward step of one process.

    Attributes:
        faults: the losses that are not finite, with their values.
    """

    step: int
    sample_tokens: tuple[str, ...]
    faults: Mapping[str, float]

    def told(self, rank: int) -> str:
        """A line of a message."""
        where = f"step {self.step}" + (f", rank {rank}" if get_world_size() > 1 else "")
        losses = ", ".join(f"{name} {value:g}" for name, value in self.faults.items())
        noun = "sample" if len(self.sample_tokens) == 1 else "samples"
        return f"{where}: {losses or 'every loss is finite'}; {noun} {', '.join(self.sample_tokens)}"


@HOOKS.register_module()
class RequireFinite(Hook):
    """Stop at a step that FiniteSteps did not take, before anything is written; or leave `may_skip` out.

    What a step that is left out did to running statistics is undone.
    """

    priority = "HIGHEST"  # before losses are logged, and before any checkpoint or export

    def __init__(self, may_skip: int) -> None:
        self.may_skip = may_skip
        self._seen: list[SeenStep] = []
        self._kept: list[Tensor] = []

    def before_train(self, runner) -> None:
        """Remember the running statistics that a resumed run goes on with."""
        self._keep(runner.model)

    def after_train_iter(
        self, runner, batch_idx: int, data_batch: Mapping[str, list], outputs: dict[str, object]
    ) -> None:
        """Called by mmengine after each step. Raises TrainingNotFinite, in every process."""
        losses = read_at_once(outputs)
        faults = {name: value for name, value in losses.items() if not math.isfinite(value)}
        if len(faults) > 1:
            faults.pop("loss", None)  # their sum
        tokens = tuple(sample.sample_token for sample in data_batch["data_samples"])
        self._seen.append(SeenStep(runner.iter + 1, tokens, faults))
        outputs.clear()
        outputs.update({} if faults else losses)  # means over the last steps stay numbers
        verdict = runner.optim_wrapper.verdict
        if verdict is None:
            return
        seen, self._seen = self._seen, []
        if verdict == "finite":
            self._keep(runner.model)
        else:
            self._skip_or_stop(runner, verdict, seen)

    def _skip_or_stop(self, runner, verdict: str, seen: list[SeenStep]) -> None:
        ranks = [(rank, one) for rank, part in enumerate(all_gather_object(seen)) for one in part]
        at_fault = [(rank, one) for rank, one in ranks if one.faults] or ranks
        lines = [one.told(rank) for rank, one in sorted(at_fault, key=lambda pair: pair[1].step)]
        hub = runner.message_hub
        skipped = hub.runtime_info.get(SKIPPED, 0)
        message = f"the {verdict} of step {runner.iter + 1} is not finite:\n{shown(lines)}"
        if skipped >= self.may_skip:
            before = f" after {skipped} that were left out" if skipped else ""
            raise TrainingNotFinite(
                f"{message}\nThe training stopped there{before}, and wrote nothing of that step. Look at the"
                " samples, or take a lower learning rate or amp=bf16; --resume continues from the last"
                f" checkpoint. --skip-nonfinite {self.may_skip + 1} would leave out such a step.",
                on_every_rank=True,
            )
        hub.update_info(SKIPPED, skipped + 1)
        with torch.no_grad():
            for buffer, kept in zip(runner.model.buffers(), self._kept, strict=True):
                buffer.copy_(kept)
        runner.logger.warning(f"{message}\nIt was left out, {skipped + 1} of at most {self.may_skip}.")

    def _keep(self, model: nn.Module) -> None:
        if self.may_skip:
            self._kept = [buffer.clone() for buffer in model.buffers()]


def read_at_once(values: Mapping[str, object]) -> dict[str, float]:
    """Numbers and one-element tensors as numbers, with one wait for the device."""
    tensors = {
        name: value.detach().float().reshape(()) for name, value in values.items() if torch.is_tensor(value)
    }
    read = torch.stack(list(tensors.values())).tolist() if tensors else []
    return {**values, **dict(zip(tensors, read, strict=True))}


def require_finite_weights(weights: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Raise TrainingNotFinite, with the first names, when weights are not finite and were to be written."""
    floating = {name: value for name, value in weights if value.is_floating_point()}
    fine = torch.stack([value.isfinite().all() for value in floating.values()]).tolist()
    bad = [name for name, finite in zip(floating, fine, strict=True) if not finite]
    if bad:
        raise TrainingNotFinite(
            f"{what} is not written: {len(bad)} of its {len(floating)} weights and statistics are not"
            f" finite:\n{shown(bad)}\nTake a lower learning rate; --resume continues from the last"
            " checkpoint."
        )
