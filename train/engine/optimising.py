"""The optimiser wrappers of a training: mixed precision on any device, and finite steps only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from camera3d.errors import ConfigInvalid
from train.engine.finite import FiniteSteps

AMP_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}


@OPTIM_WRAPPERS.register_module()
class FiniteOptimWrapper(FiniteSteps, OptimWrapper):
    """Single precision."""


@OPTIM_WRAPPERS.register_module()
class FiniteAmpOptimWrapper(FiniteSteps, AmpOptimWrapper):
    """Mixed precision on a GPU."""


@OPTIM_WRAPPERS.register_module()
class CpuAutocastOptimWrapper(FiniteSteps, OptimWrapper):
    """bfloat16 on a CPU, which needs no loss scaling."""

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass."""
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield


def with_amp(optim_wrapper: Mapping, amp: str | None, device: torch.device) -> dict:
    """The config of an optimiser wrapper in the wanted precision: None, "fp16" or "bf16"."""
    kind = optim_wrapper.get("type", "OptimWrapper")
    if kind != "OptimWrapper":
        raise ConfigInvalid(
            f"optim_wrapper.type: expected OptimWrapper, got {kind!r}; `amp` sets the precision"
        )
    wrapper = dict(optim_wrapper) | {"type": "FiniteOptimWrapper"}
    if amp is None:
        return wrapper
    if amp not in AMP_DTYPES:
        raise ConfigInvalid(f"amp: expected fp16, bf16 or None, got {amp!r}")
    if device.type == "cuda":
        # bfloat16 has single precision's range: a scaler would only cost a wait for the device each step.
        scale = "dynamic" if amp == "fp16" else {"enabled": False}
        return wrapper | {"type": "FiniteAmpOptimWrapper", "dtype": AMP_DTYPES[amp], "loss_scale": scale}
    if amp != "bf16":
        raise ConfigInvalid(f"amp={amp!r} needs a GPU; on a CPU take bf16 or none")
    return wrapper | {"type": "CpuAutocastOptimWrapper"}
