"""What a run goes on from, and whether it is still the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

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
    "amp",
)


def prepare(work_dir: str | Path, *, resume: bool) -> None:
    """Remove what a killed run left half-written.

    Raises ConfigInvalid when a new run is to start in the folder of another: a later --resume could take the
    other's checkpoints for its own.
    """
    if newest_checkpoint(work_dir) is not None and not resume:
        raise ConfigInvalid(
            f"--work-dir {work_dir} holds the checkpoints of a run: go on from it with --resume, or give"
            " another folder"
        )
    if is_main_process():
        for partial in Path(work_dir).glob(".*.pth.*.tmp"):
            partial.unlink(missing_ok=True)


def chosen_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest checkpoint, as the first process sees it: all must go on from the same.

    Raises ConfigInvalid on a process that does not see it.
    """
    chosen = [newest_checkpoint(work_dir)]
    broadcast_object_list(chosen)
    if chosen[0] is not None and not chosen[0].is_file():
        raise ConfigInvalid(f"{chosen[0]} is not here: all nodes must share --work-dir {work_dir}")
    return chosen[0]


def newest_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint with the most steps. Whatever has its final name is whole."""
    found = {path: path.stem.removeprefix("iter_") for path in Path(work_dir).glob("iter_*.pth")}
    return max(
        (p for p, steps in found.items() if steps.isdigit()), key=lambda p: int(found[p]), default=None
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
