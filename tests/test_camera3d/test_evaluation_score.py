"""Scores: ground truth as detections, toy cases with known answers, and the devkit alone on the same file."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from evaluation_cases import VERSION, detections_of, perfect_detections, write_ten_classes
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.constants import ATTRIBUTE_NAMES, DETECTION_NAMES
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes_tables import edit_table

from camera3d.data import CLASS_NAMES, build_index
from camera3d.data.devkit import open_nuscenes
from camera3d.errors import SplitMismatch
from camera3d.evaluation import Metrics, evaluate_detections, score, write_results
from camera3d.evaluation.errors import NothingToScore, ResultsIncomplete, ResultsInvalid

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")
N_SAMPLES = {"mini_val": 5, "all": 7, "one": 2}


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory):
    return write_ten_classes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def nusc(dataroot):
    return open_nuscenes(dataroot, VERSION)


def truth_as_results(nusc: NuScenes, split: str, dataroot: Path) -> dict[str, list[dict]]:
    """Every annotation of a split as a submission box, by sample token."""
    results = {}
    for frame in build_index(dataroot, VERSION, split).frames():
        results[frame.sample_token] = []
        for annotation, number in zip(frame.annotation_tokens, frame.gt_labels, strict=True):
            record = nusc.get("sample_annotation", annotation)
            attributes = [nusc.get("attribute", key)["name"] for key in record["attribute_tokens"]]
            results[frame.sample_token].append(
                {
                    "sample_token": frame.sample_token,
                    "translation": list(record["translation"]),
                    "size": list(record["size"]),
                    "rotation": list(record["rotation"]),
                    "velocity": nusc.box_velocity(annotation)[:2].tolist(),
                    "detection_name": CLASS_NAMES[number],
                    "detection_score": 1.0,
                    "attribute_name": "".join(attributes),
                }
            )
    return results


@pytest.fixture(scope="module")
def truth(nusc, dataroot):
    results = truth_as_results(nusc, "one", dataroot)
    return lambda: deepcopy(results)


@pytest.fixture
def scored(dataroot, nusc, tmp_path):
    """`scored(results, split)`: metrics of submission boxes by sample token."""

    def run(results, split="one", out=None) -> Metrics:
        path = write_results(tmp_path / "results.json", results.items())
        return score(path, dataroot, VERSION, split, out, nusc=nusc)

    return run


@pytest.mark.parametrize("split", N_SAMPLES)
def test_ground_truth_as_detections(dataroot, split, tmp_path):
    index = build_index(dataroot, VERSION, split)
    assert len(index) == N_SAMPLES[split]
    metrics = evaluate_detections(
        perfect_detections(index), CLASS_NAMES, dataroot, version=VERSION, split=split, out_dir=tmp_path
    )
    assert metrics.mean_ap == pytest.approx(1.0)
    assert metrics.nds > 0.999  # a flat velocity in a leaning LiDAR frame costs the rest
    assert set(metrics.tp_errors) == {"mATE", "mASE", "mAOE", "mAVE", "mAAE"}
    assert max(metrics.tp_errors.values()) < 3e-3
    assert [row.name for row in metrics.per_class] == list(config_factory("detection_cvpr_2019").class_names)
    assert Metrics.from_dict(json.loads((tmp_path / "metrics.json").read_text())).table() == metrics.table()
    assert json.loads((tmp_path / "results_nusc.json").read_text())["meta"] == {
        "use_camera": True,
        "use_lidar": False,
        "use_radar": False,
        "use_map": False,
        "use_external": False,
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def random_submission(nusc: NuScenes, split: str, dataroot: Path, seed: int) -> dict[str, list[dict]]:
    """The truth shaken: moved, resized, turned, renamed, dropped, doubled; some scores are equal."""
    rng = np.random.default_rng(seed)
    results = {}
    for token, boxes in truth_as_results(nusc, split, dataroot).items():
        results[token] = []
        for box in [*boxes, *boxes[:4]]:
            if rng.random() < 0.15:
                continue
            shaken = dict(box)
            shaken["translation"] = (np.array(box["translation"]) + rng.normal(0, 1.0, 3)).tolist()
            shaken["size"] = (np.array(box["size"]) * rng.uniform(0.6, 1.5, 3)).tolist()
            shaken["rotation"] = (np.array(box["rotation"]) + rng.normal(0, 0.1, 4)).tolist()
            shaken["velocity"] = rng.normal(0, 2.0, 2).tolist()
            shaken["detection_score"] = float(rng.integers(1, 20)) / 20
            if rng.random() < 0.2:
                shaken["detection_name"] = str(rng.choice(DETECTION_NAMES))
            if rng.random() < 0.5:
                shaken["attribute_name"] = str(rng.choice([*ATTRIBUTE_NAMES, ""]))
            results[token].append(shaken)
    order = rng.permutation(len(results))
    return {list(results)[i]: results[list(results)[i]] for i in order}


@pytest.mark.parametrize("split", ["mini_val", "all"])
@pytest.mark.parametrize("seed", [1, 2])
def test_same_numbers_as_the_devkit_alone(scored, nusc, dataroot, split, seed, tmp_path):
    results = random_submission(nusc, split, dataroot, seed)
    ours = scored(results, split, tmp_path / "ours")
    devkit = DetectionEval(
        nusc,
        config_factory("detection_cvpr_2019"),
        str(tmp_path / "results.json"),
        eval_set=split,
        output_dir=str(tmp_path / "devkit"),
        verbose=False,
    )
    summary = devkit.main(plot_examples=0, render_curves=False)
    assert 0.1 < ours.nds < 0.9
    assert (ours.nds, ours.mean_ap) == (summary["nd_score"], summary["mean_ap"])
    mine, theirs = (
        json.loads((tmp_path / who / "metrics_summary.json").read_text()) for who in ("ours", "devkit")
    )
    for either in (mine, theirs):
        del either["eval_time"]
    assert json.dumps(mine) == json.dumps(theirs)  # as text: NaN is not equal to itself
    curves = json.loads((tmp_path / "ours" / "precision_recall.json").read_text())
    for name, data in json.loads((tmp_path / "devkit" / "metrics_details.json").read_text()).items():
        class_name, distance = name.split(":")
        np.testing.assert_allclose(curves["precision"][class_name][distance], data["precision"], atol=1e-4)
        np.testing.assert_allclose(curves["recall"], data["recall"], atol=1e-4)
    for row in ours.per_class:
        assert row.ap == summary["mean_dist_aps"][row.name]
        np.testing.assert_array_equal(
            list(row.tp_errors.values()), list(summary["label_tp_errors"][row.name].values())
        )


def keep_first(boxes):
    del boxes[1]


def false_alarm(score_of_alarm, score_of_truth):
    def change(boxes):
        for box in boxes:
            box["detection_score"] = score_of_truth
        alarm = {**boxes[0], "detection_score": score_of_alarm}
        boxes.append({**alarm, "translation": [boxes[0]["translation"][0] + 9.0, *alarm["translation"][1:]]})

    return change


def move(boxes):
    for box in boxes:
        box["translation"][1] += 1.2


def turn(boxes):
    for box in boxes:
        w, x, y, z = box["rotation"]
        cos, sin = np.cos(0.25), np.sin(0.25)
        box["rotation"] = [cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w]


def grow(boxes):
    for box in boxes:
        box["size"][2] *= 2


def drift(boxes):
    for box in boxes:
        box["velocity"][0] -= 0.4


def stop(boxes):
    for box in boxes:
        box["attribute_name"] = "vehicle.stopped"


@dataclass(frozen=True)
class Toy:
    """What is done to the detections of cars, two a sample and perfect before, and what comes of it."""

    id: str
    change: object
    ap: float = 1.0
    errors: dict[str, float] = field(default_factory=dict)


# Values by hand. A precision-recall curve has 101 points, so that an area is good to a hundredth.
TOYS = [
    Toy("perfect", lambda boxes: None),
    Toy("nothing found", list.clear, ap=0.0, errors=dict.fromkeys(("ATE", "ASE", "AOE", "AVE", "AAE"), 1.0)),
    Toy("one of two found", keep_first, ap=0.4 / 0.9),
    Toy("a false alarm that is less sure", false_alarm(0.3, 0.7)),
    # Two alarms before four objects. Precision at recall 0, 1/4, …, 1 is 0, 1/3, 2/4, 3/5, 4/6 and a line in
    # between; the area from recall 0.1 of what lies above precision 0.1 is 0.345.
    Toy("a false alarm that is surer", false_alarm(0.9, 0.5), ap=0.345 / 0.9 / 0.9),
    Toy("1.2 m beside: found at two of the four distances", move, ap=0.5, errors={"ATE": 1.2}),
    Toy("half a radian turned", turn, errors={"AOE": 0.5}),
    Toy("twice as high", grow, errors={"ASE": 0.5}),
    Toy("0.4 m/s slower", drift, errors={"AVE": 0.4}),
    Toy("another attribute", stop, errors={"AAE": 1.0}),
]


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.id)
def test_toy_cases(scored, truth, toy):
    results = truth()
    for token, boxes in results.items():
        cars = [box for box in boxes if box["detection_name"] == "car"]
        others = [box for box in boxes if box["detection_name"] != "car"]
        assert len(cars) == 2
        toy.change(cars)
        results[token] = cars + others
    metrics = scored(results)
    (car,) = [row for row in metrics.per_class if row.name == "car"]
    assert car.ap == pytest.approx(toy.ap, abs=0.011)
    expected = dict.fromkeys(car.tp_errors, 0.0) | toy.errors
    assert car.tp_errors == pytest.approx(expected, abs=1e-6)
    for row in metrics.per_class:
        assert row.name == "car" or row.ap == pytest.approx(1.0)
    assert metrics.mean_ap == pytest.approx((9 + car.ap) / 10)
    scores = [1 - min(1.0, error) for error in metrics.tp_errors.values()]
    assert metrics.nds == pytest.approx((5 * metrics.mean_ap + sum(scores)) / 10)


def test_no_detections_at_all(dataroot, tmp_path):
    index = build_index(dataroot, VERSION, "mini_val")
    nothing = [(frame.sample_token, detections_of([], [])) for frame in index.frames()]
    metrics = evaluate_detections(
        nothing, CLASS_NAMES, dataroot, version=VERSION, split="mini_val", out_dir=None
    )
    assert (metrics.nds, metrics.mean_ap) == (0.0, 0.0)
    assert set(metrics.tp_errors.values()) == {1.0}


def test_sample_without_ground_truth(tmp_path):
    root = write_ten_classes(tmp_path)
    bare = build_index(root, VERSION, "one")[0].sample_token
    edit_table(root, "sample_annotation", lambda rows: [r for r in rows if r["sample_token"] != bare])
    edit_table(root, "sample_annotation", lambda rows: [r | {"prev": "", "next": ""} for r in rows])
    edit_table(
        root,
        "instance",
        lambda rows: [
            r | {"first_annotation_token": r["last_annotation_token"], "nbr_annotations": 1} for r in rows
        ],
    )
    index = build_index(root, VERSION, "one")
    assert [len(frame.gt_labels) for frame in index.frames()] == [0, 12]
    options = {"version": VERSION, "split": "one", "out_dir": None}
    metrics = evaluate_detections(perfect_detections(index), CLASS_NAMES, root, **options)
    assert metrics.mean_ap == pytest.approx(1.0)
    # A detection there is a false alarm.
    (token, _), (other, boxes) = perfect_detections(index)
    less_sure = replace(boxes, scores=boxes.scores / 2)
    alarms = evaluate_detections([(token, boxes), (other, less_sure)], CLASS_NAMES, root, **options)
    assert alarms.mean_ap < 0.5


def test_split_without_ground_truth_is_refused(tmp_path):
    root = write_ten_classes(tmp_path)
    for table in ("sample_annotation", "instance"):
        (root / VERSION / f"{table}.json").write_text("[]")
    detections = perfect_detections(build_index(root, VERSION, "one"))
    with pytest.raises(NothingToScore, match=r"no annotations.*results_nusc\.json"):
        evaluate_detections(
            detections, CLASS_NAMES, root, version=VERSION, split="one", out_dir=tmp_path / "out"
        )
    # What the evaluation server takes is there.
    assert len(json.loads((tmp_path / "out/results_nusc.json").read_text())["results"]) == 2


def test_missing_samples_are_refused(scored, truth):
    results = truth()
    lost = list(results)[1]
    del results[lost]
    with pytest.raises(ResultsIncomplete, match=rf"lacks 1 of the 2 samples of split 'one':\n  {lost}"):
        scored(results)


def test_other_samples_are_left_out(scored, nusc, dataroot):
    results = truth_as_results(nusc, "all", dataroot)
    with pytest.warns(UserWarning, match="5 samples outside of split 'one' are left out"):
        assert scored(results).mean_ap == pytest.approx(1.0)


def test_unknown_split_is_refused(dataroot, truth, tmp_path):
    path = write_results(tmp_path / "results.json", truth().items())
    with pytest.raises(SplitMismatch, match="unknown split 'none'"):
        score(path, dataroot, VERSION, "none")


def of_first_box(**fields):
    return lambda boxes: boxes[0].update(fields)


BAD_BOXES = {
    "unknown class": (of_first_box(detection_name="tram"), "Unknown detection_name tram"),
    "unknown attribute": (of_first_box(attribute_name="vehicle.flying"), "Unknown attribute_name"),
    "two numbers for a place": (of_first_box(translation=[1.0, 2.0]), "Translation must have 3 elements"),
    "no size": (lambda boxes: boxes[0].pop("size"), "a box has no field 'size'"),
    "score of text": (of_first_box(detection_score="high"), "could not convert string to float"),
    "another sample": (of_first_box(sample_token="elsewhere"), "says it is of sample elsewhere"),
    "too many": (lambda boxes: boxes.extend(boxes[:1] * 500), "512 boxes; 500 are allowed"),
}


@pytest.mark.parametrize(("change", "message"), BAD_BOXES.values(), ids=BAD_BOXES)
def test_bad_boxes_are_refused(scored, truth, change, message):
    results = truth()
    token, boxes = next(iter(results.items()))
    change(boxes)
    with pytest.raises(ResultsInvalid, match=f"sample {token}: .*{message}"):
        scored(results)


BAD_FILES = {
    "nothing": (None, "no results JSON"),
    "cut off": ('{"meta": {}, "results": {', "is not a results JSON"),
    "a list": ("[]", "no object 'results'"),
    "no meta": ('{"results": {}}', "no object 'meta'"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(dataroot, tmp_path, text, message):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultsInvalid, match=message):
        score(path, dataroot, VERSION, "one")


def test_nothing_half_written(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("the results of yesterday")

    def samples():
        yield "token", []
        raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="lights"):
        write_results(path, samples())
    assert path.read_text() == "the results of yesterday"
    assert list(tmp_path.iterdir()) == [path]


def test_table(scored, truth):
    lines = scored(truth()).table().splitlines()
    assert lines[0] == "NDS   1.0000"
    assert [line.split()[0] for line in lines[:7]] == ["NDS", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE"]
    assert lines[8].split() == ["class", "AP", "ATE", "ASE", "AOE", "AVE", "AAE"]
    (cone,) = [line.split() for line in lines if line.startswith("traffic_cone")]
    assert cone == ["traffic_cone", "1.000", "0.000", "0.000", "-", "-", "-"]
    assert len(lines) == 9 + 10
