"""Which kernels a training takes on a GPU: fast ones, and if need be such as repeat themselves."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import torch
from mmengine.logging import print_log

from camera3d.ops import describe_backends

# One of the two settings with which cuBLAS sums in one order; another one of the user's is left alone.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """What `deterministic=True` of a training means, inside the block; nothing where it is not wanted.

    Enter it before CUDA starts: cuBLAS reads its setting once. An operation without a repeatable kernel
    warns and runs: a training that ends at its first step is no help to anyone.
    """
    if not wanted:
        yield
        return
    os.environ.setdefault(*WORKSPACE)
    switches = [
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
        # Costs time and is for finding bugs: no result depends on it.
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in switches]
    was_strict = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for where, name, value in switches:
            setattr(where, name, value)
        torch.use_deterministic_algorithms(True, warn_only=True)
        if torch.cuda.is_available() and "mmcv" in describe_backends("cuda").values():
            print_log(
                "deterministic=True: mmcv's compiled operators add gradients up in an order that varies and"
                " do not say so; FOCALCACHE_OPS=pytorch takes the form that repeats itself",
                "current",
                level=logging.WARNING,
            )
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)
        torch.use_deterministic_algorithms(was_strict, warn_only=only_warned)


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
