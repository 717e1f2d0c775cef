"""Whether a resumed run is still the same run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from camera3d.data import SplitIndex
from camera3d.detectors.builder import plain_config
from camera3d.errors import ConfigInvalid, shown
from train.engine.extending import EPOCHS_FACT

# What decides a step's result. Intervals of logs, checkpoints and evaluations may change between runs.
DECIDING = (
    "model",
    "inputs",
    "distiller",
    "optim_wrapper",
    "param_scheduler",
    "history",
    "queue_length",
    "drop_history_frame",
    "segment_length",
    "single_frame_steps",
    "distort",
    "augmentation",
    "ema",
    "class_balanced",
    "amp",
    "auto_scale_lr",
)
ABSENT = "not given"


def run_facts(config: Config, index: SplitIndex, targets: str) -> dict[str, str]:
    """What a run is made of, as text, to be kept in its checkpoints.

    Args:
        index: of the frames that are trained on.
        targets: where the teacher's outputs come from: a store's fingerprint, or the teacher.
    """
    facts = {name: _text(plain_config(config.get(name))) for name in DECIDING}
    facts[EPOCHS_FACT] = str(config.get("train_cfg", {}).get("max_epochs"))
    facts["frames"] = hashlib.sha256(index.columns["sample_token"].tobytes()).hexdigest()[:12]
    return facts | {"targets": targets}


def require_same_run(checkpoint: Path | str, then: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Raise ConfigInvalid, setting by setting, when a checkpoint is of a run with other ones."""
    changed = [
        line for name, value in now.items() if name in then for line in _changes(name, then[name], value)
    ]
    if changed:
        longer = ""
        if then.get(EPOCHS_FACT) != now.get(EPOCHS_FACT):
            longer = f" A training is made longer by --epochs {now.get(EPOCHS_FACT)}."
        raise ConfigInvalid(
            f"cannot resume {checkpoint}: the run's settings changed:\n{shown(changed)}\n"
            f"Give the same as before, or start anew in another work folder.{longer}"
        )


def _changes(name: str, then: object, now: object) -> list[str]:
    """A line for each value under a name that was another one then."""
    if then == now:
        return []
    if name not in DECIDING:
        return [f"{name}: {then} then, {now} now"]
    # Checkpoints of an earlier version have the digest of the text.
    if re.fullmatch("[0-9a-f]{12}", str(then)):
        if then == hashlib.sha256(str(now).encode()).hexdigest()[:12]:
            return []
        return [f"{name}: another value then, and the checkpoint has only its digest; {now} now"]
    return list(_differences(name, json.loads(str(then)), json.loads(str(now))))


def _differences(path: str, then: object, now: object) -> Iterator[str]:
    if then == now:
        return
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*then, *now)):
            yield from _differences(f"{path}.{key}", then.get(key, ABSENT), now.get(key, ABSENT))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, pair in enumerate(zip(then, now, strict=True)):
            yield from _differences(f"{path}.{number}", *pair)
    else:
        yield f"{path}: {then} then, {now} now"


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
