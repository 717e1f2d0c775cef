"""The official evaluation of a results JSON: the devkit's loaders, filters and algorithm.

The devkit's own constructor takes the name of a split, treats predefined and custom ones differently, and
fails when no box is left. Only that constructor is replaced here; every number is the devkit's.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    get_samples_of_scenes,
    load_gt_of_sample_tokens,
)
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.splits import is_predefined_split

from camera3d.data.devkit import check_dataroot, open_nuscenes
from camera3d.data.splits import check_split, scene_names_of_split
from camera3d.evaluation.errors import NothingToScore
from camera3d.evaluation.metrics import Metrics, precision_recall
from camera3d.evaluation.results_file import (
    CURVES_NAME,
    METRICS_NAME,
    SUMMARY_NAME,
    check_coverage,
    eval_boxes,
    read_results,
    result_file,
)
from camera3d.evaluation.submission import EVAL_CONFIG


class DetectionEvaluation(DetectionEval):
    """The devkit's evaluation over boxes that are loaded already.

    Args:
        pred_boxes: of exactly the samples of `gt_boxes`; both are filtered in place.
        meta: of the results JSON.
    """

    def __init__(self, nusc: NuScenes, pred_boxes: EvalBoxes, gt_boxes: EvalBoxes, meta: dict) -> None:
        self.nusc, self.cfg, self.meta, self.verbose = nusc, EVAL_CONFIG, meta, False
        self.pred_boxes, self.gt_boxes = (
            _filtered(nusc, add_center_dist(nusc, boxes)) for boxes in (pred_boxes, gt_boxes)
        )
        self.sample_tokens = self.gt_boxes.sample_tokens


def split_tokens(nusc: NuScenes, split: str) -> list[str]:
    """The sample tokens of a split, predefined or custom, that the tables hold. Raises SplitMismatch."""
    return get_samples_of_scenes(scene_names_of_split(nusc, split), nusc)


def score(
    results_json: str | Path,
    dataroot: str | Path,
    version: str,
    split: str,
    out_dir: str | Path | None = None,
    *,
    nusc: NuScenes | None = None,
) -> Metrics:
    """Score a results JSON on a split as the official code does, plots left out.

    Args:
        out_dir: where to leave `metrics.json` (`Metrics.to_dict`), the devkit's `metrics_summary.json` and
            `precision_recall.json` (`precision_recall`).
        nusc: the version's devkit database, when it is loaded already.

    Raises:
        DatasetNotFound, SplitMismatch: from the dataset.
        ResultsInvalid, ResultsIncomplete: the file is not in the official format, or lacks samples.
        NothingToScore: the split has no annotations.
        ResultsUnwritable: the disk does not take a file.
    """
    if nusc is None:
        check_dataroot(dataroot, version)
        check_split(dataroot, version, split)
    results, meta = read_results(results_json)  # before the tables, which take minutes to load
    nusc = nusc or open_nuscenes(dataroot, version)
    tokens = split_tokens(nusc, split)
    check_coverage(results, tokens, str(results_json), split)
    if len(results) > len(tokens):
        warnings.warn(
            f"{results_json}: {len(results) - len(tokens)} samples outside of split {split!r} are left out",
            stacklevel=2,
        )
    wanted = set(tokens)
    # Equal scores are ranked by the order of samples: in the devkit that of the file, or of a custom split.
    order = [token for token in results if token in wanted] if is_predefined_split(split) else tokens
    pred_boxes = eval_boxes(results, order, str(results_json))
    gt_boxes = load_gt_of_sample_tokens(nusc, tokens, DetectionBox)
    if not gt_boxes.all:
        raise NothingToScore(
            f"split {split!r} of {version} in {dataroot} has no annotations of the ten classes to score"
            f" {results_json} against. For the test split, hand that file in at the evaluation server."
        )
    evaluation = DetectionEvaluation(nusc, pred_boxes, gt_boxes, meta)
    found, details = evaluation.evaluate()
    metrics = Metrics.of_devkit(found)
    if out_dir is not None:
        ours = json.dumps(metrics.to_dict(), indent=2, allow_nan=False)
        official = json.dumps({**found.serialize(), "meta": meta}, indent=2)
        curves = json.dumps(precision_recall(details), allow_nan=False)
        for name, text in ((METRICS_NAME, ours), (SUMMARY_NAME, official), (CURVES_NAME, curves)):
            with result_file(Path(out_dir) / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return metrics


def _filtered(nusc: NuScenes, boxes: EvalBoxes) -> EvalBoxes:
    # The devkit's filter takes the kind of box from the first one and fails when there is none to ask.
    return filter_eval_boxes(nusc, boxes, EVAL_CONFIG.class_range) if boxes.all else boxes
