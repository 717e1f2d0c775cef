"""The device of this process, and the group it belongs to when torchrun started several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed

# One process may evaluate, or write a large checkpoint, while the others wait.
TIMEOUT = timedelta(hours=2)


@contextmanager
def process_group() -> Iterator[torch.device]:
    """The device to train on; under torchrun with the processes joined: NCCL on GPUs, gloo on CPUs."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    joined = "RANK" in os.environ and not torch.distributed.is_initialized()
    if joined:
        torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
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
