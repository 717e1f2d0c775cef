"""The device that a command was asked for, and whether this machine has it."""

from __future__ import annotations

import os

import torch

from camera3d.errors import ConfigInvalid


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
