"""The device of this process, and the group of processes that torchrun started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed

from camera3d.errors import ConfigInvalid

# One process may evaluate, or write a large checkpoint, while the others wait.
TIMEOUT = timedelta(hours=2)
DEVICE_HELP = "cpu, cuda or cuda:N (default: a GPU where there is one)"


def checked_device(name: str | None) -> torch.device:
    """The device of that name; "cuda", and None where there is one, is the GPU of this process of torchrun.

    Raises ConfigInvalid when this machine does not have it.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigInvalid(f"--device {name}: {error}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigInvalid(f"--device {name}: choose cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigInvalid(
            f"--device {name}: torch {torch.__version__} sees no CUDA device; use --device cpu"
        )
    if device.type == "cuda":
        if device.index is None:
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if device.index >= torch.cuda.device_count():
            raise ConfigInvalid(
                f"--device {device}: this machine has {torch.cuda.device_count()} CUDA devices; start at most"
                " one process for each"
            )
        torch.cuda.set_device(device)
    return device


def told(device: torch.device) -> torch.device:
    """The device itself, after the first process has said on stderr which one it is."""
    if is_first_process():
        name = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
        sys.stderr.write(f"device: {device}{name}\n")
    return device


@contextmanager
def process_group(device: torch.device, *, tensors: bool = True) -> Iterator[torch.device]:
    """The device, and under torchrun its processes joined.

    Args:
        tensors: whether gradients travel, over NCCL between GPUs; otherwise small objects do, over gloo.
    """
    joined = "RANK" in os.environ and not torch.distributed.is_initialized()
    if joined:
        backend = "nccl" if tensors and device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=TIMEOUT)
    try:
        yield device
    finally:
        if joined:
            torch.distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process prints the result."""
    return os.environ.get("RANK", "0") == "0"


def tells(error: Exception) -> bool:
    """Whether this process prints an error: the first one does for all where all have the same."""
    return is_first_process() or not getattr(error, "on_every_rank", False)
