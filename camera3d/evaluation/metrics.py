"""The numbers of an evaluation, under the names that papers print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from nuscenes.eval.detection.data_classes import DetectionMetricDataList, DetectionMetrics

# The devkit's names of the true-positive errors, and those of the tables.
TP_ERRORS: Mapping[str, str] = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One row of the per-class table.

    Attributes:
        ap: average precision, the mean over the four distances.
        tp_errors: ATE in metres, ASE as 1 - IoU, AOE in radians, AVE in m/s, AAE as 1 - accuracy; NaN where
            the class has no such error.
    """

    name: str
    ap: float
    tp_errors: Mapping[str, float]

    def to_dict(self) -> dict[str, object]:
        """JSON has no NaN: None stands for it."""
        errors = {name: None if math.isnan(error) else error for name, error in self.tp_errors.items()}
        return {"name": self.name, "ap": self.ap, "tp_errors": errors}

    @classmethod
    def from_dict(cls, raw: Mapping) -> Self:
        """What `to_dict` gave."""
        errors = {name: math.nan if error is None else error for name, error in raw["tp_errors"].items()}
        return cls(name=raw["name"], ap=raw["ap"], tp_errors=errors)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What the official evaluation says about detections.

    Attributes:
        nds: nuScenes detection score, in [0, 1].
        mean_ap: mean over the ten classes, in [0, 1].
        tp_errors: mATE, mASE, mAOE, mAVE, mAAE; means over the classes that have them.
        per_class: in the devkit's order of classes.
    """

    nds: float
    mean_ap: float
    tp_errors: Mapping[str, float]
    per_class: tuple[ClassMetrics, ...]

    @classmethod
    def of_devkit(cls, metrics: DetectionMetrics) -> Self:
        """From the devkit's object."""
        per_class = tuple(
            ClassMetrics(
                name=name,
                ap=float(ap),
                tp_errors={
                    short: float(metrics.get_label_tp(name, long)) for long, short in TP_ERRORS.items()
                },
            )
            for name, ap in metrics.mean_dist_aps.items()
        )
        return cls(
            nds=float(metrics.nd_score),
            mean_ap=float(metrics.mean_ap),
            tp_errors={f"m{short}": float(metrics.tp_errors[long]) for long, short in TP_ERRORS.items()},
            per_class=per_class,
        )

    @property
    def summary(self) -> dict[str, float]:
        """By name; the first number is what checkpoints are chosen by."""
        return {"NDS": self.nds, "mAP": self.mean_ap, **self.tp_errors}

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "nds": self.nds,
            "mean_ap": self.mean_ap,
            "tp_errors": dict(self.tp_errors),
            "per_class": [row.to_dict() for row in self.per_class],
        }

    @classmethod
    def from_dict(cls, raw: Mapping) -> Self:
        """What `to_dict` gave."""
        return cls(
            nds=raw["nds"],
            mean_ap=raw["mean_ap"],
            tp_errors=dict(raw["tp_errors"]),
            per_class=tuple(ClassMetrics.from_dict(row) for row in raw["per_class"]),
        )

    def table(self) -> str:
        """The summary and one line a class, to be printed."""
        lines = [f"{name:<5} {value:.4f}" for name, value in self.summary.items()]
        lines += ["", f"{'class':<20}" + "".join(f"{n:>8}" for n in ("AP", *TP_ERRORS.values()))]
        for row in self.per_class:
            values = (row.ap, *row.tp_errors.values())
            cells = "".join(f"{'-' if math.isnan(value) else f'{value:.3f}':>8}" for value in values)
            lines.append(f"{row.name:<20}{cells}")
        return "\n".join(lines)


def precision_recall(details: DetectionMetricDataList) -> dict[str, object]:
    """The curves behind the average precisions, for JSON.

    Returns:
        `recall`, the devkit's grid from 0 to 1; `precision` by class and distance in metres (as text), a
        number for each recall: 0 where it was not reached.
    """
    precision: dict[str, dict[str, list[float]]] = {}
    recall: list[float] = []
    for (name, distance), data in details.md.items():
        recall = data.recall.round(4).tolist()
        precision.setdefault(name, {})[str(distance)] = data.precision.round(4).tolist()
    return {"recall": recall, "precision": precision}
