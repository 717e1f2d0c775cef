"""Whether a run that is gone on with is still the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from camera3d.data import NuScenesIndex
from camera3d.detectors.builder import plain_config
from camera3d.errors import ConfigInvalid, shown

# What decides a step's result. Intervals of logs, checkpoints and evaluations may change between runs.
DECIDING = (
    "model",
    "inputs",
    "distiller",
    "optim_wrapper",
    "param_scheduler",
    "queue_length",
    "drop_history_frame",
    "distort",
    "class_balanced",
    "amp",
    "auto_scale_lr",
)


def run_facts(config: Config, index: NuScenesIndex, targets: str) -> dict[str, str]:
    """Digests of what a run is made of, to be kept in its checkpoints.

    Args:
        index: of the frames that are trained on.
        targets: where the teacher's outputs come from: a store's fingerprint, or the teacher.
    """
    facts = {name: _digest(plain_config(config.get(name))) for name in DECIDING}
    facts["train_cfg.max_epochs"] = str(config.get("train_cfg", {}).get("max_epochs"))
    facts["frames"] = hashlib.sha256(index.columns["sample_token"].tobytes()).hexdigest()[:12]
    return facts | {"targets": targets}


def require_same_run(checkpoint: Path | str, then: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raise ConfigInvalid, part by part, when a checkpoint is of a run with other settings."""
    changed = [
        f"{name}: {then[name]} then, {value} now"
        for name, value in now.items()
        if then.get(name, value) != value
    ]
    if changed:
        raise ConfigInvalid(
            f"cannot resume {checkpoint}: the run's settings changed:\n{shown(changed)}\n"
            "Give the same as before, or start anew in another work folder."
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
