"""The plain student out of whatever was trained around it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.model import is_model_wrapper
from torch import nn

from camera3d.detectors import Detector
from train.distillers import Distiller
from train.engine.finite import require_finite_weights


def plain_detector(model: nn.Module) -> Detector:
    """The detector inside a distiller, a data-parallel wrapper, or both."""
    inner = model.module if is_model_wrapper(model) else model
    return inner.student if isinstance(inner, Distiller) else inner


def export(detector: Detector, path: Path) -> None:
    """Write the detector's weights, and nothing else, for `evaluate.py` and for anybody's strict loading.

    Raises TrainingNotFinite when they are not.
    """
    weights = {key: value.detach().cpu() for key, value in detector.state_dict().items()}
    require_finite_weights(weights.items(), str(path))
    replace_with(path, lambda temporary: torch.save({"state_dict": weights}, temporary))


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary path)`, then rename: nothing half-written under the final name.

    File and name are on the disk when this returns.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)
