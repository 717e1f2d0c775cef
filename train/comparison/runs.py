"""What a training or an evaluation left in its folder, or what a store's teacher detected, under one name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache_schema.errors import CacheError
from cache_schema.reader import TargetReader
from cache_schema.storage import store_path

RESULTS_NAME, METRICS_NAME, CURVES_NAME = "results_nusc.json", "metrics.json", "precision_recall.json"
VALIDATION = "validation"  # where a training leaves its evaluation
_SCALARS = "*/vis_data/scalars.json"
DETECTION = "detection"
_LAYER = "d0."  # of the loss of a decoder layer that is not the last


class NotARun(CacheError):
    """A folder or file that no training, evaluation or dump has left."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One of the compared.

    Attributes:
        path: as it was given.
        metrics: of `metrics.json`; None when nothing was scored.
        curves: of `precision_recall.json`; None when there is none.
        losses: values (step, value) of every term, with `loss`, the sum of all.
        scores: values (epoch, value) of NDS and mAP after the epochs.
        results: the results JSON; None when there is none.
        reader: of a store; None for all else.
    """

    name: str
    path: Path | str
    metrics: Mapping[str, Any] | None = None
    curves: Mapping[str, Any] | None = None
    losses: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    scores: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    results: Path | None = None
    reader: TargetReader | None = None


def read_run(path: str, name: str) -> Run:
    """A work folder, what `evaluate.py --out` left, a results JSON, or a store.

    Raises CacheError when it is none of these, or a file in it is not as we write it.
    """
    folder = Path(path)
    if path.startswith("s3://") or (folder / "zarr.json").is_file():
        return Run(name=name, path=path, reader=TargetReader(store_path(path)))
    if folder.is_file():
        return Run(name=name, path=folder, results=folder)
    scalars = sorted(folder.glob(_SCALARS))
    evaluation = folder / VALIDATION if (folder / VALIDATION).is_dir() else folder
    metrics, results = evaluation / METRICS_NAME, evaluation / RESULTS_NAME
    if not (scalars or metrics.is_file() or results.is_file()):
        raise NotARun(
            f"{path} is not a {'run' if folder.is_dir() else 'folder'}: name the work folder of a training,"
            " what evaluate.py --out left, a results JSON, or a store"
        )
    records = [record for file in scalars for record in _records(file)]
    return Run(
        name=name,
        path=folder,
        metrics=_read(metrics, ("nds", "mean_ap", "tp_errors", "per_class")) if metrics.is_file() else None,
        curves=_read(evaluation / CURVES_NAME, ("recall", "precision"))
        if (evaluation / CURVES_NAME).is_file()
        else None,
        losses=_losses(records),
        scores=_series([record for record in records if "NDS" in record], ("NDS", "mAP")),
        results=results if results.is_file() else None,
    )


def run_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, with as many parts before as tell them apart."""
    return [_name(path, [other for other in paths if other != path]) for path in paths]


def _name(path: str, others: Sequence[str]) -> str:
    parts = Path(path).parts
    for number in range(1, len(parts)):
        if all(Path(other).parts[-number:] != parts[-number:] for other in others):
            return "/".join(parts[-number:])
    return path


def _read(path: Path, keys: Sequence[str]) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise NotARun(f"{path} cannot be read: {error}") from None
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise NotARun(f"{path} has no {', '.join(missing)}: evaluate again, with --out {path.parent}")
    return found


def _records(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that a training may still be writing."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise NotARun(f"{path}, line {number} is not JSON") from None
    return found


def _losses(records: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """By term; the losses of the decoder layers, which are many, as their sum."""
    training = [dict(record) for record in records if "loss" in record]
    names = dict.fromkeys(name for record in training for name in record)
    per_layer = {name.removeprefix(_LAYER) for name in names if name.startswith(_LAYER + "loss")}
    detection = [name for name in names if name.split(".")[-1] in per_layer]
    for record in training:
        if parts := [record[name] for name in detection if name in record]:
            record[DETECTION] = sum(parts)
    terms = [name for name in names if name.startswith("loss_") and name not in detection]
    return _series(training, ("loss", *([DETECTION] if detection else []), *terms))


def _series(
    records: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, list[tuple[float, float]]]:
    """Values by step; of a step that was taken twice, as after a resume, the later."""
    found: dict[str, dict[float, float]] = {name: {} for name in names}
    for record in records:
        for name in names:
            value = record.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                found[name][record["step"]] = value
    return {name: sorted(values.items()) for name, values in found.items() if values}
