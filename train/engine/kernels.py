"""Which kernels a training takes on a GPU: fast ones, and if need be such as repeat themselves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import torch
from mmengine.logging import print_log

from camera3d.fixed_numerics import deterministic_kernels
from camera3d.ops import describe_backends


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """What `deterministic=True` of a training means, inside the block; nothing where it is not wanted.

    An operation without a repeatable kernel warns and runs: a training that ends at its first step is no help
    to anyone. See `deterministic_kernels`.
    """
    if not wanted:
        yield
        return
    with deterministic_kernels(warn_only=True):
        if torch.cuda.is_available() and "mmcv" in describe_backends("cuda").values():
            print_log(
                "deterministic=True: mmcv's compiled operators add gradients up in an order that varies and"
                " do not say so; FOCALCACHE_OPS=pytorch takes the form that repeats itself",
                "current",
                level=logging.WARNING,
            )
        yield


@contextlib.contextmanager
def fast_products(device: torch.device) -> Iterator[None]:
    """Inside the block, matrix products of single precision on a GPU round their factors to TF32.

    Convolutions do that by PyTorch's default. NVIDIA_TF32_OVERRIDE=0 in the environment switches both off.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
