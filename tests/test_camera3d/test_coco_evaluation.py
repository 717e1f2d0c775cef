"""COCO's evaluation of detections: perfect ones, none, and what cannot be scored."""

from __future__ import annotations

import json
import math

import pytest
import torch
from coco_cases import CLASSES, VERSION, edit_annotations, write_coco

from camera3d.data.coco.reader import build_coco_index
from camera3d.detectors.protocol import Detections
from camera3d.errors import Camera3DError
from camera3d.evaluation import evaluate_pictures, score_results_file
from camera3d.evaluation.errors import NothingToScore, ResultsIncomplete, ResultsInvalid

WHERE = {"version": VERSION, "split": "val"}


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco")


def perfect(root):
    index = build_coco_index(root, VERSION, "val", class_names=CLASSES)
    return [
        (
            frame.sample_token,
            Detections(
                boxes=torch.tensor(frame.gt_boxes[~frame.crowd]).view(-1, 4),
                scores=torch.ones(int((~frame.crowd).sum())),
                labels=torch.tensor(frame.gt_labels[~frame.crowd]),
            ),
        )
        for frame in index
    ]


def none(root):
    empty = Detections(
        boxes=torch.zeros(0, 4), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long)
    )
    return [(token, empty) for token, _ in perfect(root)]


def test_perfect_detections(root, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    metrics = evaluate_pictures(perfect(root), CLASSES, root, out_dir=out, **WHERE)
    assert metrics.numbers["mAP"] == pytest.approx(1.0)
    assert metrics.per_class == pytest.approx(dict.fromkeys(CLASSES, 1.0))
    assert math.isnan(metrics.numbers["AP_large"])
    assert next(iter(metrics.summary)) == "mAP"
    assert json.loads((out / "metrics.json").read_text())["numbers"]["AP_large"] is None
    results = json.loads((out / "results_coco.json").read_text())
    assert {row["image_id"] for row in results} == {100, 107, 121, 128}
    assert results[0]["category_id"] == 3
    table = metrics.table()
    assert "mAP           1.0000" in table
    assert "AP_large      -" in table
    # The results file, scored again on all categories of the file: one of four is missed.
    again = score_results_file(out / "results_coco.json", root, VERSION, "val", None)
    assert again.numbers["mAP"] == pytest.approx(0.75)
    assert again.per_class["kite"] == 0


def test_no_detections(root):
    metrics = evaluate_pictures(none(root), CLASSES, root, out_dir=None, **WHERE)
    assert metrics.numbers["mAP"] == 0


def not_finite(root):
    found = perfect(root)
    found[0][1].boxes[0, 0] = math.nan
    return found


def unlabelled(root):
    found = perfect(root)
    edit_annotations(root, "val", lambda contents: contents.update(annotations=[]))
    return found


CASES = {
    "missing": (lambda root: perfect(root)[1:], ResultsIncomplete, "lacks 1 of the 5 samples"),
    "not finite": (
        not_finite,
        ResultsInvalid,
        "sample 000000000100: a detection has a number that is not finite",
    ),
    "no truth": (unlabelled, NothingToScore, "split 'val' has no annotations of car, person, traffic light"),
}


@pytest.mark.parametrize("case", CASES)
def test_refusals(case, root):
    made, error, says = CASES[case]
    with pytest.raises(error, match=says):
        evaluate_pictures(made(root), CLASSES, root, out_dir=None, **WHERE)


FILES = {
    "absent": (None, "no results JSON"),
    "not JSON": ("[{", "is no COCO results JSON"),
    "object": ('{"results": {}}', "is no COCO results JSON"),
    "no score": ('[{"image_id": 100, "category_id": 3, "bbox": [1, 2, 3, 4]}]', "KeyError: 'score'"),
    "stray": (
        '[{"image_id": 5, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 1}]',
        "has boxes of pictures that split 'val' lacks: 5",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_results_that_cannot_be_scored(case, root, tmp_path):
    text, says = FILES[case]
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Camera3DError, match=says):
        score_results_file(path, root, VERSION, "val", None)
