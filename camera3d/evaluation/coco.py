"""The COCO evaluation of 2D detections, by pycocotools.

Every number is pycocotools' own; here are the results file, what is scored, and what a failure means.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO, COCOeval

from camera3d.data.coco.folder import annotation_file
from camera3d.data.coco.reader import category_ids, open_coco, sample_token
from camera3d.detectors.protocol import Detections
from camera3d.evaluation.errors import NothingToScore, ResultsInvalid
from camera3d.evaluation.results_file import METRICS_NAME, check_coverage
from camera3d.files import replaced

RESULTS_NAME = "results_coco.json"
# pycocotools' twelve numbers in its order: of all IoU thresholds, of two, by size; then recall.
NAMES = ("mAP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
RECALLS = ("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large")
NOTHING = -1.0  # pycocotools' word for an average over nothing


@dataclass(frozen=True, kw_only=True)
class CocoMetrics:
    """What pycocotools says about detections.

    Attributes:
        numbers: by name, mAP first, in [0, 1]; NaN where the split has no such object.
        per_class: average precision of each class, in label order; likewise.
    """

    numbers: Mapping[str, float]
    per_class: Mapping[str, float]

    @property
    def summary(self) -> dict[str, float]:
        """By name; the first number is what checkpoints are chosen by."""
        return {name: self.numbers[name] for name in NAMES}

    def to_dict(self) -> dict[str, object]:
        """JSON has no NaN: None stands for it."""

        def plain(numbers: Mapping[str, float]) -> dict[str, float | None]:
            return {name: None if math.isnan(value) else value for name, value in numbers.items()}

        return {"numbers": plain(self.numbers), "per_class": plain(self.per_class)}

    def table(self) -> str:
        """The numbers and one line a class, to be printed."""
        width = max(map(len, (*self.numbers, *self.per_class, "class")))
        rows = [f"{name:<{width}} {_text(value)}" for name, value in self.numbers.items()]
        rows += ["", f"{'class':<{width}} AP"]
        return "\n".join([*rows, *(f"{n:<{width}} {_text(value)}" for n, value in self.per_class.items())])


def evaluate_pictures(
    detections: Iterable[tuple[str, Detections]],
    class_names: Sequence[str],
    dataroot: str | Path,
    *,
    version: str,
    split: str,
    out_dir: str | Path | None,
    coco: COCO | None = None,
) -> CocoMetrics:
    """Write detections as a COCO results JSON and score it.

    Args:
        detections: sample token and 2D boxes in pixels of the pictures, each token once.
        class_names: what the labels stand for.
        out_dir: where to leave the results and metrics.json; None: nowhere.
        coco: the split's annotations, when they are loaded already.

    Raises:
        ConfigInvalid: a class that the annotations lack; ResultsInvalid: numbers that cannot be; and what
        `score_pictures` raises.
    """
    path = annotation_file(dataroot, version, split)
    coco = coco or open_coco(path)
    ids = category_ids(coco, class_names, path)
    rows, seen = [], []
    for token, found in detections:
        rows += _results(token, found, ids)
        seen.append(token)
    check_coverage(seen, picture_tokens(coco), "the detections", split)
    with contextlib.ExitStack() as stack:
        folder = out_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="coco-results-"))
        with replaced(Path(folder) / RESULTS_NAME) as temporary:
            temporary.write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")
    return score_pictures(rows, coco, dict(zip(class_names, ids, strict=True)), split, out_dir)


def score_results_file(
    path: str | Path, dataroot: str | Path, version: str, split: str, out_dir: str | Path | None
) -> CocoMetrics:
    """Score a results JSON in COCO's format on all categories of a split.

    Raises ResultsInvalid when it is in another format, and what `score_pictures` raises.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
        coco = open_coco(annotation_file(dataroot, version, split))
        known = set(coco.getImgIds())
        strays = sorted({str(row["image_id"]) for row in rows if row["image_id"] not in known})
        for row in rows:
            if len(row["bbox"]) != 4 or not np.isfinite([*row["bbox"], row["score"]]).all():
                raise ValueError(f"picture {row['image_id']} has the box {row['bbox']}, score {row['score']}")
    except FileNotFoundError:
        raise ResultsInvalid(f"no results JSON {path}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResultsInvalid(
            f"{path} is no COCO results JSON ({type(error).__name__}: {error}). Write"
            ' [{"image_id": …, "category_id": …, "bbox": [x, y, w, h], "score": …}, …].'
        ) from error
    if strays:
        raise ResultsInvalid(
            f"{path} has boxes of pictures that split {split!r} lacks: {', '.join(strays[:10])}"
            f"{', …' if len(strays) > 10 else ''}. Name the split that it was made for."
        )
    names = {category["name"]: category["id"] for category in coco.dataset["categories"]}
    return score_pictures(rows, coco, names, split, out_dir)


def score_pictures(
    rows: list[dict], coco: COCO, ids: Mapping[str, int], split: str, out_dir: str | Path | None
) -> CocoMetrics:
    """Score results on all pictures of the annotations.

    Args:
        rows: in COCO's results format.
        ids: the category of each class that is scored.

    Raises NothingToScore: the split has no annotations of these classes.
    """
    wanted = set(ids.values())
    if not any(note["category_id"] in wanted for note in coco.dataset.get("annotations", ())):
        raise NothingToScore(
            f"split {split!r} has no annotations of {', '.join(ids)} to score against. For a test split, hand"
            f" {RESULTS_NAME} in at the evaluation server."
        )
    with contextlib.redirect_stdout(io.StringIO()):  # its own tables, which lack the classes
        scoring = COCOeval(coco, _as_coco(rows, coco), "bbox")
        scoring.params.catIds = list(ids.values())
        scoring.evaluate()
        scoring.accumulate()
        scoring.summarize()
    found = [math.nan if value == NOTHING else float(value) for value in scoring.stats]
    # Threshold, recall, class, size of the objects (all), most detections.
    precision = scoring.eval["precision"][:, :, :, 0, -1]
    metrics = CocoMetrics(
        numbers=dict(zip((*NAMES, *RECALLS), found, strict=True)),
        per_class={name: _mean(precision[:, :, number]) for number, name in enumerate(ids)},
    )
    if out_dir is not None:
        with replaced(Path(out_dir) / METRICS_NAME) as temporary:
            temporary.write_text(json.dumps(metrics.to_dict(), indent=2), encoding="utf-8")
    return metrics


def picture_tokens(coco: COCO) -> list[str]:
    """The sample tokens of all pictures, in the file's order."""
    return [sample_token(image_id) for image_id in coco.getImgIds()]


def _results(token: str, found: Detections, ids: Sequence[int]) -> list[dict]:
    boxes, scores = found.boxes.detach().cpu().double().numpy(), found.scores.detach().cpu().double().numpy()
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ResultsInvalid(
            f"sample {token}: a detection has a number that is not finite. The weights have diverged; take an"
            " earlier checkpoint."
        )
    sizes = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    return [
        {"image_id": int(token), "category_id": ids[label], "bbox": box, "score": score}
        for label, box, score in zip(found.labels.tolist(), sizes.tolist(), scores.tolist(), strict=True)
    ]


def _as_coco(rows: list[dict], coco: COCO) -> COCO:
    if rows:
        return coco.loadRes([dict(row) for row in rows])
    empty = COCO()  # which pycocotools does not make of an empty list
    empty.dataset = {**coco.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _mean(precision: np.ndarray) -> float:
    reached = precision[precision > NOTHING]
    return float(reached.mean()) if reached.size else math.nan


def _text(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
