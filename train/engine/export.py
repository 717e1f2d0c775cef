"""The plain student out of whatever was trained around it."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.model import is_model_wrapper
from torch import nn

from camera3d.detectors import Detector
from camera3d.files import replace_with
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
