"""Read official checkpoints, strictly and without unpickling code."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from camera3d.errors import CheckpointMismatch

WRAPPERS = ("module.", "model.")  # of data-parallel training, and of Lightning modules
SHOWN = 12  # keys listed of each kind before the rest is counted
LOAD_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError)


@dataclass(frozen=True)
class Checkpoint:
    """Weights by key, what their file says about them, and how to call the file in a message."""

    weights: Mapping[str, Tensor]
    meta: Mapping[str, object]
    source: str


@runtime_checkable
class ReadsOtherForms(Protocol):
    """A detector whose checkpoints exist in several forms that have the same keys and shapes."""

    def own_form(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """The weights as this detector computes with them. Raises CheckpointMismatch when none can tell."""


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A checkpoint file: a bare state dict, or one under `state_dict` with or without `meta` beside it.

    Raises:
        CheckpointMismatch: no such file, or not a file that torch reads with weights_only.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointMismatch(f"no checkpoint file {path}")
    try:
        # Checkpoints carry numpy scalars and mmengine's own types in their training log.
        with harmless_globals():
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        raise CheckpointMismatch(
            f"{path} is not a PyTorch checkpoint of plain weights: {reason_of(error)}\n"
            "Save its 'state_dict' and its 'meta' again, torch.save({'state_dict': …, 'meta': …}, path), with"
            " plain numbers and text in 'meta'."
        ) from error
    return _checkpoint(loaded, str(path))


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint file as they stand in it, see `read_checkpoint`."""
    return dict(read_checkpoint(path).weights)


def reason_of(error: Exception) -> str:
    """Why torch did not load a file, without its advice: to load one that may run any code is no way out."""
    if isinstance(error, pickle.UnpicklingError):
        refused = re.search(r"(?:Unsupported global: GLOBAL|Unsupported class) (\S+)", str(error))
        return "it holds more than tensors and plain values" + (f", such as {refused[1]}" if refused else "")
    first = str(error).split("\n", 1)[0]
    return type(error).__name__ if "weights_only" in first else f"{type(error).__name__}: {first}"


def load_official(detector: nn.Module, path_or_state_dict: str | Path | Mapping[str, object]) -> None:
    """Load weights into a detector, every key and every shape, or nothing at all.

    A detector that `ReadsOtherForms` is asked for its own form of the weights first.

    Raises:
        CheckpointMismatch: lists what is missing, what is unexpected and what has another shape, together.
    """
    if isinstance(path_or_state_dict, Mapping):
        checkpoint = _checkpoint(path_or_state_dict, "the state dict")
    else:
        checkpoint = read_checkpoint(path_or_state_dict)
    source, weights = checkpoint.source, checkpoint.weights
    wanted = detector.state_dict()
    # BatchNorm's step counter came after the first checkpoints and is never used with frozen statistics.
    optional = {key for key in wanted if key.endswith("num_batches_tracked")}
    missing = [key for key in wanted if key not in weights and key not in optional]
    unexpected = [key for key in weights if key not in wanted]
    misshapen = [
        f"{key}: expected {tuple(wanted[key].shape)}, got {tuple(weights[key].shape)}"
        for key in wanted
        if key in weights and wanted[key].shape != weights[key].shape
    ]
    if unexpected and any(key.startswith("student.") for key in weights):
        raise CheckpointMismatch(
            f"{source} is a checkpoint of a distillation, which --resume continues from: use last.pth or"
            " best.pth beside it, which hold the student alone"
        )
    if missing or unexpected or misshapen:
        lines = [f"{source} does not fit the detector ({len(wanted)} entries); nothing was loaded"]
        for title, keys in (("missing", missing), ("unexpected", unexpected), ("other shape", misshapen)):
            lines += _listed(title, keys)
        lines.append("Use the config that the checkpoint was trained with.")
        raise CheckpointMismatch("\n".join(lines))
    if isinstance(detector, ReadsOtherForms):
        weights = detector.own_form(checkpoint)
    detector.load_state_dict(dict(weights), strict=not optional)


def _checkpoint(loaded: object, source: str) -> Checkpoint:
    meta: object = None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        meta, loaded = loaded.get("meta"), loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointMismatch(
            f"{source} holds no state dict: neither tensors by name nor a 'state_dict' entry"
        )
    weights = dict(loaded)
    for prefix in WRAPPERS:
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return Checkpoint(weights, meta if isinstance(meta, Mapping) else {}, source)


def _listed(title: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    lines = [f"  {title} ({len(keys)}):"] + [f"    {key}" for key in keys[:SHOWN]]
    return lines + ([f"    … and {len(keys) - SHOWN} more"] if len(keys) > SHOWN else [])


def _statistic_of_history_buffer(owner: object, name: str) -> object:
    """All of `getattr` that mmengine's log needs: its four statistics are pickled as attributes of a class.

    The real one must not be allowed: with it a file could reach any function of the interpreter.
    """
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in ("min", "max", "current", "mean"):
        raise pickle.UnpicklingError(f"attribute {name!r} of {owner!r} is not part of a training log")
    return getattr(owner, name)


def harmless_globals() -> AbstractContextManager:
    """A context in which torch loads, with weights_only, what mmcv 1.x and mmengine write besides tensors."""
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    dtypes = [type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32)]
    allowed = [
        HistoryBuffer,
        (_statistic_of_history_buffer, "builtins.getattr"),
        np.dtype,
        np.ndarray,
        np.core.multiarray.scalar,
        np.core.multiarray._reconstruct,
        *dtypes,
    ]
    return torch.serialization.safe_globals(allowed)
