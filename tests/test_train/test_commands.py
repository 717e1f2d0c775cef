"""The two training commands: help, errors, what goes where; and whether a student learns at all."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_cases import FRAMES, SPLIT, recorded_losses

from camera3d.checkpoint import load_official
from camera3d.data import CLASS_NAMES
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from train import distill_from_cache, train_detector
from train.comparison.runs import read_run

COMMANDS = {"train_detector": train_detector, "distill_from_cache": distill_from_cache}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name, capsys):
    with pytest.raises(SystemExit) as left:
        COMMANDS[name].main(["--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    assert f"python train/{name}.py configs/" in said
    for option in ("--resume", "--init-from", "--val-split", "--cfg-options"):
        assert option in said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--cfg-options", "amp"), "KEY=VALUE"),
        (("--batch-size", "0"), "--batch-size 0: expected 1 or more"),
        (("--workers", "-1"), "--workers -1: expected 0 or more"),
        (("--cfg-options", "model.type='Nothing'"), "model.type: 'Nothing' is not registered"),
        (("--cfg-options", "train_cfg.max_epoch=3"), "train_cfg.max_epoch"),
        (("--cfg-options", "optim_wrapper.type='AmpOptimWrapper'"), "`amp` sets the precision"),
        (("--cfg-options", "optim_wrapper.optimizer.type='Adamant'"), "Adamant"),
        (("--cfg-options", "optim_wrapper.optimizer.speed=2"), "speed"),
        (("--init-from", "gone.pth"), "no checkpoint file gone.pth"),
        (("--version", "v1.0-gone"), "v1.0-gone"),
    ],
)
def test_what_a_user_can_put_right_ends_with_2(workshop, tmp_path, capsys, name, more, says):
    arguments = workshop.arguments(workshop.student_config(), tmp_path, *more)
    if name == "distill_from_cache":
        arguments += ["--cache", str(workshop.store("exact"))]
    assert COMMANDS[name].main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "Traceback" not in err


def test_a_store_that_does_not_fit_ends_with_2(workshop, tmp_path, capsys):
    arguments = workshop.arguments(workshop.student_config(), tmp_path, "--cache", str(tmp_path / "no.zarr"))
    assert distill_from_cache.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "StoreNotFound" in err
    assert "Traceback" not in err


def test_stdout_holds_the_path_and_nothing_else(workshop, tmp_path, capfd, one_thread):
    config = workshop.student_config(
        "short", distiller={"terms": {"focal": {}}}, **{"train_cfg.max_epochs": 1}
    )
    arguments = workshop.arguments(config, tmp_path / "work", "--init-from", str(workshop.checkpoint))
    assert distill_from_cache.main([*arguments, "--cache", str(workshop.store("focal"))]) == 0
    out, err = capfd.readouterr()
    assert out == f"{tmp_path / 'work/last.pth'}\n"
    assert "weights loaded" in err
    for words in ("training\n  command ", "store ", "digest ", "terms ", "focal weight 0.05", "of which"):
        assert words in err
    for noise in ("Hooks will be", "mmengine - INFO", "Exp name", "has no metainfo"):
        assert noise not in err
    steps = [line for line in err.splitlines() if re.match(rf"\d\d:\d\d:\d\d \d/{FRAMES} loss ", line)]
    assert len(steps) == FRAMES
    for line in steps:
        assert re.search(r"  detection \d+%  focal \d+%  lr \S+  \d+:\d\d:\d\d left$", line)
        assert len(line) <= 100
    load_official(build_detector(config), tmp_path / "work/last.pth")


def test_evaluation_keeps_the_best_student(workshop, tmp_path, one_thread, capfd):
    config = workshop.student_config("scored", **{"train_cfg.max_epochs": 1})
    arguments = workshop.arguments(config, tmp_path, "--val-split", SPLIT)
    assert train_detector.main(arguments) == 0
    load_official(build_detector(load_config(config)), tmp_path / "best.pth")
    assert (tmp_path / "validation/metrics_summary.json").exists()
    assert (
        "is for a distillation: here its student is trained on the ground truth alone"
        in capfd.readouterr().err
    )
    run = read_run(str(tmp_path), "student")
    assert (
        set(run.curves["precision"]) == {row["name"] for row in run.metrics["per_class"]} == set(CLASS_NAMES)
    )
    assert run.results.is_file()
    assert run.scores["NDS"] == [(1, pytest.approx(run.metrics["nds"]))]
    assert list(run.losses) == ["loss", "detection"]
    board = EventAccumulator(str(next(tmp_path.rglob("events.out.*")).parent), {"images": 0}).Reload()
    (picture,) = board.Images("held-out frame")
    assert picture.step == FRAMES
    pixels = imread(io.BytesIO(picture.encoded_image_string))
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
    assert run.losses["detection"] == [(step, pytest.approx(value)) for step, value in run.losses["loss"]]


def test_a_student_learns_a_few_frames_by_heart(workshop, tmp_path, one_thread):
    config = workshop.student_config(
        "learner",
        **{
            "model.grid_mask_prob": 0.0,
            "model.pts_bbox_head.dropout": 0.0,
            "distort": False,
            "train_cfg.max_epochs": 60 // FRAMES * 2,
            "optim_wrapper.optimizer.lr": 2e-3,
            "param_scheduler": [{"type": "ConstantLR", "factor": 1.0, "by_epoch": False}],
        },
    )
    arguments = workshop.arguments(config, tmp_path, "--batch-size", "2")
    with recorded_losses() as steps:
        assert train_detector.main(arguments) == 0
    losses = [step["loss"] for step in steps]
    assert len(losses) == 60
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    load_official(build_detector(load_config(config)), tmp_path / "last.pth")
