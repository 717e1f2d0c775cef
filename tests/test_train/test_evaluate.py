"""The command: a checkpoint, a results JSON and a store; what it prints, leaves behind and refuses."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_cases import write_small_config
from evaluation_cases import SCENES, VERSION, write_ten_classes
from golden.formula import state_dict

from cache_schema.detections import detection_arrays
from cache_schema.reader import TargetReader
from cache_schema.spec import FocalFacts
from cache_schema.writer import StoreWriter
from camera3d.data import ImagePipeline, build_index
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from camera3d.evaluation import predict_split, results_file
from extract.dump_teacher import main as dump_teacher
from train import evaluation_run
from train.evaluate import main
from train.targets.stored_detections import stored_detections

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory):
    return write_ten_classes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def dataset(dataroot):
    """The options that every command needs."""
    return ["--dataroot", str(dataroot), "--version", VERSION]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Config and checkpoint of a small detector."""
    folder = tmp_path_factory.mktemp("weights")
    config = write_small_config(folder)
    detector = build_detector(config)
    torch.save({"state_dict": state_dict(detector)}, folder / "last.pth")
    return [str(config), "--checkpoint", str(folder / "last.pth")]


@pytest.fixture(scope="module")
def dumped(weights, dataset, tmp_path_factory):
    """The store that this detector leaves as a teacher."""
    store = tmp_path_factory.mktemp("dumped") / "teacher.zarr"
    options = ["--split", "all", "--arrays", "queries", "--workers", "0", "--threads", "1"]
    assert dump_teacher([*weights, *dataset, *options, "--out", str(store)]) == 0
    return store


@pytest.fixture(scope="module")
def knowing(dataroot, dumped, tmp_path_factory):
    """`knowing(profile, scenes)`: a store of a teacher that knows the annotations; other class order."""
    index = build_index(dataroot, VERSION, "all")
    spec = TargetReader(dumped).spec
    class_names = spec.outputs.class_names[::-1]

    def write(profile="exact", scenes=tuple(SCENES)) -> Path:
        store = tmp_path_factory.mktemp(profile) / "teacher.zarr"
        focal = FocalFacts(min_score=0.5, background_block=4, areas={}) if profile == "focal" else None
        outputs = replace(spec.outputs, class_names=class_names)
        writer = StoreWriter.create(
            store, replace(spec, profile=profile, arrays=detection_arrays(), outputs=outputs, focal=focal)
        )
        for scene in index.select(scenes).scenes:
            stamps = [(frame.sample_token, frame.timestamp_us) for frame in scene.frames]
            with writer.scene(scene.name, scene.token, stamps) as open_scene:
                for frame in scene.frames:
                    known = np.nan_to_num(frame.gt_boxes)
                    values = {
                        "detection_boxes": known.astype(np.float32),
                        "detection_scores": np.full(len(known), 0.9, np.float32),
                        "detection_labels": (9 - frame.gt_labels).astype(np.int16),
                    }
                    open_scene.append(
                        frame.sample_token, values, **({"areas": {}} if profile == "focal" else {})
                    )
        return store

    return write


def numbers(table: str) -> dict[str, float]:
    """NDS, mAP and the mean errors out of what the command printed."""
    return {name: float(value) for name, value in re.findall(r"^(NDS|mA?\w+) +([\d.]+)$", table, re.M)}


@pytest.fixture(scope="module")
def evaluated(weights, dataset, tmp_path_factory):
    """What the command prints and leaves behind for the checkpoint, run as a user would run it."""
    out = tmp_path_factory.mktemp("out")
    command = [sys.executable, "-W", "ignore", "train/evaluate.py", *weights, *dataset]
    process = subprocess.run(
        [*command, "--split", "mini_val", "--workers", "1", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return process, out


def test_checkpoint(evaluated):
    process, out = evaluated
    lines = process.stdout.splitlines()
    assert list(numbers(process.stdout)) == ["NDS", "mAP", "mATE", "mASE", "mAOE", "mAVE", "mAAE"]
    assert len(lines) == 19  # the summary, an empty line, the head and ten classes: nothing else on stdout
    assert "evaluate: 100%" in process.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    summary = json.loads((out / "metrics_summary.json").read_text())
    assert metrics["nds"] == summary["nd_score"]
    assert numbers(process.stdout)["NDS"] == pytest.approx(metrics["nds"], abs=1e-4)


def test_results_of_a_checkpoint_score_the_same(evaluated, dataset, capsys):
    process, out = evaluated
    results = ["--results", str(out / "results_nusc.json")]
    assert main([*results, *dataset, "--split", "mini_val"]) == 0
    assert capsys.readouterr().out == process.stdout


def test_replayed_detections_are_those_of_the_teacher(weights, dataroot, dumped):
    config, _, checkpoint = weights
    config = load_config(config)
    detector = build_detector(config)
    detector.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    index = build_index(dataroot, VERSION, "all")
    pipeline = ImagePipeline.from_config(config.inputs)
    direct = dict(predict_split(detector, index, pipeline, dataroot, device="cpu", workers=0, progress=False))
    reader = TargetReader(dumped)
    assert set(direct) == set(reader.sample_tokens)
    for token, replayed in stored_detections(reader, direct):
        live = direct[token]
        assert len(live.scores) > 5
        assert len(replayed.scores) == len(live.scores)
        for name, values in vars(live).items():
            torch.testing.assert_close(getattr(replayed, name), values, atol=1e-4, rtol=1e-4)


def test_replayed_teacher_scores_as_it_does_live(weights, dataset, dumped, capsys):
    assert main(["--from-cache", str(dumped), *dataset, "--split", "mini_val"]) == 0
    replayed = numbers(capsys.readouterr().out)
    assert main([*weights, *dataset, "--split", "mini_val", "--workers", "0"]) == 0
    assert replayed == pytest.approx(numbers(capsys.readouterr().out), abs=1e-4)


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
@pytest.mark.parametrize("split", ["mini_val", "all"])
def test_knowing_teacher(knowing, dataset, profile, split, capsys):
    """Class order of the store, any split, every profile: a mistake would cost the score."""
    assert main(["--from-cache", str(knowing(profile)), *dataset, "--split", split]) == 0
    captured = capsys.readouterr()
    assert numbers(captured.out)["NDS"] > 0.99
    assert "replay: 100%" in captured.err


def test_store_of_another_split_is_refused(knowing, dataset, capsys):
    store = knowing("exact", ["scene-0061"])
    assert main(["--from-cache", str(store), *dataset, "--split", "mini_val"]) == 2
    error = capsys.readouterr().err
    assert "ResultsIncomplete" in error
    assert "lacks 5 of the 5 samples of split 'mini_val':" in error
    assert main(["--from-cache", str(store), *dataset, "--split", "one"]) == 0


def test_a_store_of_another_digest_is_refused(dumped, dataset, capsys):
    command = ["--from-cache", str(dumped), *dataset, "--split", "one", "--expect-digest"]
    digest = TargetReader(dumped).digest
    assert main([*command, digest[::-1]]) == 2
    assert f"DigestMismatch: {dumped} is not the store that is expected" in capsys.readouterr().err
    assert main([*command, digest[:12]]) == 0


def test_a_store_of_any_arrays_replays(weights, dataset, tmp_path, capsys):
    store = tmp_path / "bev.zarr"
    options = ["--split", "one", "--arrays", "bev", "--workers", "0", "--threads", "1", "--out", str(store)]
    assert dump_teacher([*weights, *dataset, *options, "--profile", "focal"]) == 0
    assert main(["--from-cache", str(store), *dataset, "--split", "one"]) == 0
    assert "NDS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("part", "bad"), [("cls_branches", "of query_logits"), ("reg_branches", "of query_boxes")]
)
def test_a_detector_that_predicts_nan_has_no_score(weights, dataset, dataroot, tmp_path, part, bad, capsys):
    config, flag, checkpoint = weights
    broken = torch.load(checkpoint, weights_only=True)["state_dict"]
    # The last layer's alone: boxes that are NaN were dropped as out of range, and nothing scored 0.
    names = [name for name in broken if part in name and name.endswith("bias")]
    broken[names[-1]] = broken[names[-1]] * torch.nan
    torch.save({"state_dict": broken}, tmp_path / "diverged.pth")
    command = [config, flag, str(tmp_path / "diverged.pth"), *dataset, "--split", "one", "--workers", "0"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first = build_index(dataroot, VERSION, "one").frames()
    assert f"OutputsNotFinite: sample {next(iter(first)).sample_token}: " in err
    assert bad in err
    assert not list((tmp_path / "out").iterdir())


def unwritable(folder: Path, kind: str) -> Path:
    """A place for results where none can be left."""
    if kind == "below a file":
        (folder / "file").write_text("")
        return folder / "file" / "out"
    (folder / "out" / "results_nusc.json").mkdir(parents=True)
    return folder / "out"


@pytest.mark.parametrize("kind", ["below a file", "a folder in its place"])
def test_a_place_that_cannot_be_written_is_found_out_first(
    weights, dumped, dataset, tmp_path, kind, capsys, monkeypatch
):
    def predicts(*_, **__):
        raise AssertionError("frames were predicted for nothing")

    monkeypatch.setattr(evaluation_run, "stored_detections", predicts)
    monkeypatch.setattr("camera3d.evaluation.evaluate.predict_split", predicts)
    out = str(unwritable(tmp_path, kind))
    for source in (weights, ["--from-cache", str(dumped)], ["--results", "any.json"]):
        assert main([*source, *dataset, "--split", "one", "--out", out]) == 2
        err = capsys.readouterr().err
        assert "ResultsUnwritable" in err
        assert out in err
        assert "another folder" in err


@pytest.mark.parametrize("with_out", [True, False], ids=["--out", "temporary files"])
def test_a_disk_that_is_too_full_is_found_out_before_a_frame_is_predicted(
    weights, dumped, dataset, tmp_path, with_out, capsys, monkeypatch
):
    def predicts(*_, **__):
        raise AssertionError("frames were predicted for nothing")

    monkeypatch.setattr(evaluation_run, "stored_detections", predicts)
    monkeypatch.setattr("camera3d.evaluation.evaluate.predict_split", predicts)
    usage = shutil.disk_usage(tmp_path)._replace(free=150_000)
    monkeypatch.setattr(results_file.shutil, "disk_usage", lambda path: usage)
    out = ["--out", str(tmp_path / "out")] if with_out else []
    for source in (weights, ["--from-cache", str(dumped)]):
        assert main([*source, *dataset, "--split", "one", *out]) == 2
        err = capsys.readouterr().err
        assert "ResultsUnwritable: the results of 2 samples take up to 0.2 MB" in err
        assert "Make room, or give another folder" in err


def test_a_disk_that_fills_up_meanwhile_is_one_sentence(dumped, dataset, tmp_path, capsys):
    """The kernel refuses a file beyond the limit as it refuses one on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        source = ["--from-cache", str(dumped), *dataset, "--split", "one"]
        assert main([*source, "--out", str(tmp_path / "out")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out, err = capsys.readouterr()
    assert f"{tmp_path / 'out' / 'results_nusc.json'} cannot be written: File too large" in err
    assert "Make room" in err
    assert (out, list((tmp_path / "out").iterdir())) == ("", [])


def test_student_with_extra_parts_is_refused(weights, dataset, tmp_path, capsys):
    config, flag, checkpoint = weights
    bigger = torch.load(checkpoint, weights_only=True)["state_dict"] | {
        "distiller.lift.weight": torch.ones(2)
    }
    torch.save({"state_dict": bigger}, tmp_path / "training.pth")
    assert main([config, flag, str(tmp_path / "training.pth"), *dataset, "--split", "one"]) == 2
    error = capsys.readouterr().err
    assert "CheckpointMismatch" in error
    assert "distiller.lift.weight" in error


REFUSED = {
    "nothing to evaluate": ([], "name one thing to evaluate"),
    "two things": (["--results", "a.json", "--from-cache", "b.zarr"], "name one thing to evaluate"),
    "digest of no store": (
        ["--results", "a.json", "--expect-digest", "0" * 64],
        "--expect-digest concerns a store: name it with --from-cache",
    ),
    "config alone": (["config.py"], "name one thing to evaluate"),
    "no such file": (["--results", "/nowhere/a.json"], "no results JSON /nowhere/a.json"),
    "no such store": (["--from-cache", "/nowhere/b.zarr"], "StoreNotFound"),
    "no such config": (["nowhere.py", "--checkpoint", "a.pth"], "no config file nowhere.py"),
    "bad workers": (["--results", "a.json", "--workers", "-1"], "--workers -1"),
    "bad device": (["c.py", "--checkpoint", "a.pth", "--device", "tpu9"], "--device tpu9"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(dataset, options, message, capsys):
    assert main([*options, *dataset, "--split", "one"]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def test_wrong_split_is_refused_before_anything_is_loaded(dataset, capsys):
    assert main(["--from-cache", "/nowhere", *dataset, "--split", "val"]) == 2
    assert "split 'val' belongs to v1.0-trainval" in capsys.readouterr().err
