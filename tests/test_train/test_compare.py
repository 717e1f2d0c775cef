"""The page that compares runs: numbers as they were written, boxes in their places, errors of one message."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from browser import DRIVER, REASON, Browser
from page_cases import facts_of, faults_of
from run_folders import annotations, leave_run, leave_store

from cache_schema.inspection.dataset_tables import DatasetTables
from cache_schema.pages.charts import line_chart, thinned
from camera3d.data import CAMERA_NAMES, CLASS_NAMES, build_index
from camera3d.evaluation.results_file import write_results
from train.compare import main
from train.comparison.results import ResultsJson
from train.comparison.runs import NotARun, read_run, run_names

VERSION, SCENES = "v1.0-mini", {"scene-0061": 3, "scene-0553": 2}
pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(scenes=SCENES)


@pytest.fixture(scope="module")
def annotated(dataroot):
    return annotations(dataroot, VERSION)


@pytest.fixture
def runs(tmp_path, annotated):
    """A run that knows everything, and one that sees half of it."""
    half = {token: boxes[::2] for token, boxes in annotated.items()}
    return [
        str(leave_run(tmp_path / "first/work", annotated)),
        str(leave_run(tmp_path / "second/work", half, ap=0.2, terms=(), curves=False)),
    ]


def page_of(tmp_path, *argv) -> str:
    assert main([*map(str, argv), "--out", str(tmp_path / "c.html")]) == 0
    return (tmp_path / "c.html").read_text()


def test_tables_know_where_sensors_look(dataroot):
    tables = DatasetTables(dataroot, VERSION)
    index = build_index(dataroot, VERSION, "mini_train")
    for frame in index.frames():
        found = tables.lidar2img(frame.sample_token, CAMERA_NAMES)
        np.testing.assert_allclose(found, frame.lidar2img, rtol=1e-6, atol=1e-6)
    expected = {
        scene.frames[0].scene_name: [(frame.sample_token, frame.timestamp_us) for frame in scene.frames]
        for scene in index.scenes
    }
    assert tables.scenes({frame.sample_token for frame in index.frames()}) == expected


def test_numbers_of_all_runs(tmp_path, runs):
    page = page_of(tmp_path, *runs, "--names", "teacher", "student")
    assert faults_of(page) == []
    for words in (
        "0.5000",
        "0.2500",
        "0.1000",
        "teacher",
        "student",
        "loss_focal by step: teacher ends at 160",
    ):
        assert words in page
    assert "No curves of student, which an earlier release scored" in page
    assert "car by recall: teacher ends at 0" in page
    assert "detection, all decoder layers by step: teacher ends at 6, student ends at 6" in page
    assert "NDS by epoch" in page
    assert "give --dataroot" in page


def test_a_log_after_a_resume_counts_each_step_once(tmp_path, annotated):
    losses = read_run(str(leave_run(tmp_path / "w", annotated)), "w").losses
    assert losses["loss"] == [(50, 50), (100, 100), (150, 150)]
    assert losses["loss_focal"] == [(50, 50), (100, 110), (150, 160)]
    assert list(losses) == ["loss", "detection", "loss_focal"]


def test_boxes_lie_on_the_annotated_ones(tmp_path, runs, dataroot, annotated):
    page = page_of(tmp_path, *runs, "--dataroot", dataroot, "--version", VERSION, "--frames", 4)
    facts = facts_of(page)
    assert facts["runs"] == ["first/work", "second/work"]
    assert [frame["scene"] for frame in facts["frames"]] == ["scene-0061"] * 2 + ["scene-0553"] * 2
    reach, compared = facts["range_m"][3], 0
    for frame in facts["frames"]:
        every, half = frame["found"]
        assert every["scores"] == sorted(every["scores"], reverse=True)
        assert len(half["boxes"]) == len(annotated[frame["token"]][::2])
        for label, box in zip(frame["truth"]["labels"], frame["truth"]["boxes"], strict=True):
            assert np.abs(np.array(every["boxes"]) - box).max(axis=1).min() < 1e-4
            assert facts["class_names"][label] in CLASS_NAMES
            compared += max(map(abs, box[:2])) < reach
    assert compared > 5


def test_a_store_and_results_are_runs_too(tmp_path, runs, dataroot, annotated):
    frames = build_index(dataroot, VERSION, "mini_train").scenes[0].frames[:2]
    store = leave_store(tmp_path / "teacher.zarr", frames)
    results = tmp_path / "first/work/validation/results_nusc.json"
    argv = [store, results, "--dataroot", dataroot, "--version", VERSION]
    page = page_of(tmp_path, *argv)
    assert "Without a score: teacher.zarr, results_nusc.json" in page
    drawn = facts_of(page)["frames"]
    assert [frame["token"] for frame in drawn] == [frame.sample_token for frame in frames]
    for frame in drawn:
        teacher, student = frame["found"]
        np.testing.assert_allclose(sorted(teacher["boxes"]), sorted(student["boxes"]), rtol=1e-4, atol=1e-4)
        assert sorted(teacher["labels"]) == sorted(student["labels"])


def test_a_teacher_that_has_not_seen_the_frames_is_said(tmp_path, dataroot, annotated):
    first, second = (dict([item]) for item in list(annotated.items())[:2])
    paths = [leave_run(tmp_path / name, found) for name, found in (("a", first), ("b", second))]
    facts = facts_of(page_of(tmp_path, *paths, "--dataroot", dataroot, "--version", VERSION))
    assert [[found is None for found in frame["found"]] for frame in facts["frames"]] == [[False, True]]


def test_a_long_training_stays_a_small_page():
    losses = [(float(step), 1.0 + step % 2) for step in range(100_000)]
    few = thinned(losses)
    assert len(few) <= 240
    np.testing.assert_allclose([value for _, value in few], 1.5, atol=0.01)
    assert thinned(losses[:100]) == losses[:100]
    assert len(line_chart("loss", [(0, "run", losses)], x_name="step")) < 5000


def test_any_layout_of_results_is_read(tmp_path, annotated):
    ours = write_results(tmp_path / "ours.json", annotated.items())
    others = tmp_path / "others.json"
    others.write_text(json.dumps({"meta": {}, "results": annotated}, indent=1))
    for path in (ours, others):
        found = ResultsJson(path)
        assert {token: found[token] for token in found.tokens} == annotated
    ours.write_bytes(ours.read_bytes()[:-10])
    with pytest.raises(NotARun, match=r"ours\.json is not a results JSON"):
        ResultsJson(ours)


def test_a_few_frames_of_many_take_little_memory(tmp_path, annotated):
    """A split of nuScenes has some 700 MB of results, several times that as objects."""
    boxes = next(iter(annotated.values()))
    path = write_results(tmp_path / "r.json", ((f"{n:032x}", boxes * 30) for n in range(200)))
    tracemalloc.start()
    found = ResultsJson(path)[f"{7:032x}"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == boxes * 30
    assert peak < path.stat().st_size / 5


REFUSED = {
    "no run": (["nowhere"], "NotARun: nowhere is not a folder: name the work folder of a training"),
    "an empty folder": (["{empty}"], "is not a run: name the work folder of a training"),
    "metrics of something else": (["{broken}"], "metrics.json has no nds, mean_ap, tp_errors, per_class"),
    "no folder for the page": (["{run}", "--out", "nowhere/c.html"], "there is no folder nowhere"),
    "too many": (["{run}"] * 9, "9 runs: at most 8"),
    "no dataset": (["{run}", "--dataroot", "{empty}", "--version", VERSION], "sensor.json is missing"),
    "another dataset": (
        ["{other}", "--dataroot", "{data}", "--version", VERSION],
        "has none of the samples of",
    ),
    "a box without a score": (
        ["{scoreless}", "--dataroot", "{data}", "--version", VERSION],
        "'detection_score'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_one_message(tmp_path, capsys, dataroot, annotated, case):
    argv, words = REFUSED[case]
    token, boxes = next(iter(annotated.items()))
    scoreless = [{key: value for key, value in box.items() if key != "detection_score"} for box in boxes]
    places = {
        "run": leave_run(tmp_path / "run", annotated),
        "other": leave_run(tmp_path / "other", {"0" * 32: boxes}),
        "scoreless": leave_run(tmp_path / "scoreless", {token: scoreless}),
        "empty": tmp_path / "empty",
        "broken": leave_run(tmp_path / "broken", annotated),
        "data": dataroot,
    }
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken/validation/metrics.json").write_text("{}")
    argv = [word.format(**places) for word in argv]
    assert main(argv if "--out" in argv else [*argv, "--out", str(tmp_path / "c.html")]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "c.html").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a", "b", "--names", "one"], "1 names for 2 runs"),
        (["a", "--dataroot", "d"], "--dataroot and --version belong together"),
        (["a", "--frames", "0"], "--frames 0: must be 1 or more"),
    ],
)
def test_options_that_do_not_fit(argv, words, capsys):
    with pytest.raises(SystemExit):
        main(argv)
    assert words in capsys.readouterr().err


def test_names_tell_runs_apart():
    assert run_names(["work/alone", "work/fd3d/"]) == ["alone", "fd3d"]
    assert run_names(["a/work", "b/work", "c"]) == ["a/work", "b/work", "c"]


def test_it_needs_no_torch(tmp_path, runs, dataroot):
    code = (
        "import sys\nfor name in ('torch', 'mmengine', 'nuscenes', 'matplotlib'): sys.modules[name] = None\n"
        "from train.compare import main\nsys.exit(main(sys.argv[1:]))"
    )
    argv = [*runs, "--out", tmp_path / "c.html", "--dataroot", dataroot, "--version", VERSION]
    subprocess.run([sys.executable, "-c", code, *argv], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(DRIVER is None, reason=REASON)
def test_in_a_browser(tmp_path, runs, dataroot):
    page_of(tmp_path, *runs, "--dataroot", dataroot, "--version", VERSION, "--frames", 5)
    shown = "p.querySelectorAll('g.box:not(.hidden)').length"
    visible = f"return [...document.querySelectorAll('svg.bev')].map((p) => {shown})"
    with Browser(tmp_path / "chromium") as browser:
        browser.open(tmp_path / "c.html")
        frames = facts_of((tmp_path / "c.html").read_text())["frames"]
        n_truth = len(frames[0]["truth"]["boxes"])
        assert browser.run(visible) == [min(n_truth, len(found["boxes"])) for found in frames[0]["found"]]
        browser.set("as-many", False)
        browser.set("threshold", 0.8)
        counts = [sum(score >= 0.8 for score in found["scores"]) for found in frames[0]["found"]]
        assert browser.run(visible) == counts
        assert f"first/work {counts[0]}, second/work {counts[1]}" in browser.text("status")
        before = browser.run("return document.querySelector('svg.camera image').getAttribute('href')")
        browser.set("time", 1)
        assert frames[1]["token"] in browser.text("status")
        browser.set("camera", 3)
        assert browser.run("return document.querySelector('svg.camera image').getAttribute('href')") != before
        assert (
            browser.run("return document.querySelector('.camera + figcaption').textContent")
            == "CAM_BACK_LEFT"
        )
        browser.set("scene", 1)
        assert frames[3]["token"] in browser.text("status")
        assert browser.run("return document.querySelectorAll('path.curve').length") >= 5
        assert browser.texts_that_are_cut() == []
        assert browser.messages() == []
