"""Which implementation of an operator runs on which device: the one place that decides.

The rule is short. mmcv's compiled operator runs where it has a kernel for the tensor's device; everywhere
else the pure PyTorch form runs. `PREFERRED` lists the exceptions, each with its reason. An mmcv without its
extension (mmcv-lite, or a build that does not match this torch) counts as having no kernel at all.

The choice can be overridden, in this order: `with use_backend("pytorch"):`, then the environment variable
FOCALCACHE_OPS=auto|mmcv|pytorch, read at every call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch

from camera3d.errors import Camera3DError

MSDA = "multi_scale_deformable_attention"
DCN = "modulated_deform_conv2d"
CHOICES = ("auto", "mmcv", "pytorch")
ENVIRONMENT_VARIABLE = "FOCALCACHE_OPS"

# Device types for which mmcv has a kernel, given a build with that device.
MMCV_DEVICES = {MSDA: ("cuda",), DCN: ("cpu", "cuda")}

# (operator, device type) -> backend, where measurement says that the rule above is not the best choice.
PREFERRED = {
    # mmcv's CPU kernel fills its columns one scalar at a time, channel by channel. The PyTorch form copies
    # whole channels-last pixels and is about three times as fast on ResNet-101's layers
    # (benchmarks/results/ops.md).
    (DCN, "cpu"): "pytorch",
}

_override: ContextVar[str | None] = ContextVar("op_backend_override", default=None)


class OpBackendError(Camera3DError):
    """A backend was asked for by name and does not exist or cannot run on the device."""


def op_backend(op: str, device: torch.device | str) -> str:
    """The backend, "mmcv" or "pytorch", that runs `op` on `device` now.

    Raises:
        OpBackendError: mmcv was asked for and has no kernel there, or the choice is not one of CHOICES.
    """
    if op not in MMCV_DEVICES:
        raise OpBackendError(f"unknown operator {op!r}; known: {', '.join(MMCV_DEVICES)}")
    device_type = torch.device(device).type
    choice = _requested()
    if choice == "pytorch":
        return "pytorch"
    obstacle = _obstacle(op, device_type)
    if choice == "mmcv":
        if obstacle:
            raise OpBackendError(
                f"mmcv was asked for, but {obstacle}; use {ENVIRONMENT_VARIABLE}=auto or pytorch"
            )
        return "mmcv"
    return "pytorch" if obstacle else PREFERRED.get((op, device_type), "mmcv")


def describe_backends(device: torch.device | str) -> dict[str, str]:
    """The backend of every operator on `device`, by operator name: what a store's fingerprint records."""
    return {op: op_backend(op, device) for op in sorted(MMCV_DEVICES)}


@contextmanager
def use_backend(choice: str) -> Iterator[None]:
    """Override the choice of backend inside the block, in this thread; "auto" restores the rule."""
    token = _override.set(_validated(choice, "use_backend"))
    try:
        yield
    finally:
        _override.reset(token)


@cache
def mmcv_function(op: str) -> Callable | None:
    """mmcv's compiled implementation of `op`, or None when mmcv has no usable extension."""
    # Imported here and once: importing mmcv.ops loads the extension, which mmcv-lite does not have.
    try:
        if op == MSDA:
            from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction

            return MultiScaleDeformableAttnFunction.apply
        from mmcv.ops.modulated_deform_conv import modulated_deform_conv2d

        return modulated_deform_conv2d
    except ImportError:
        return None


def _requested() -> str:
    choice = _override.get()
    if choice is not None:
        return choice
    return _validated(os.environ.get(ENVIRONMENT_VARIABLE, "auto"), ENVIRONMENT_VARIABLE)


def _validated(choice: str, source: str) -> str:
    if choice not in CHOICES:
        raise OpBackendError(f"{source}: {choice!r} is not a backend; choose one of {', '.join(CHOICES)}")
    return choice


def _obstacle(op: str, device_type: str) -> str | None:
    """Why mmcv cannot run `op` on this type of device, or None when it can."""
    if device_type not in MMCV_DEVICES[op]:
        return f"it has no {op} kernel for {device_type}"
    if mmcv_function(op) is None:
        return "its compiled extension cannot be imported"
    if device_type == "cuda" and not _mmcv_built_with_cuda():
        return "its extension was built without CUDA"
    return None


@cache
def _mmcv_built_with_cuda() -> bool:
    from mmcv.ops import get_compiling_cuda_version

    return get_compiling_cuda_version() != "not available"
