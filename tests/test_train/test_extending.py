"""A finished training goes on for more epochs, at the rates of the longer schedule."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from train_cases import FRAMES

from camera3d.errors import ConfigInvalid
from train.distill_from_cache import main
from train.engine.checkpoints import checkpoints
from train.engine.options import with_epochs
from train.engine.run import distill

pytestmark = pytest.mark.usefixtures("one_thread")


def rates(work_dir: Path) -> dict[int, float]:
    """The learning rate of every step that was logged."""
    lines = [json.loads(line) for file in work_dir.rglob("scalars.json") for line in file.open()]
    return {line["step"]: line["lr"] for line in lines if "lr" in line}


@pytest.fixture(scope="module")
def finished(one_thread, workshop, tmp_path_factory):
    """A config, and the work folder of a training that had two epochs."""
    schedule = [
        {"type": "LinearLR", "start_factor": 0.5, "by_epoch": False, "begin": 0, "end": 4},
        {"type": "CosineAnnealingLR", "by_epoch": True, "begin": 0, "eta_min_ratio": 1e-3},
    ]
    config = workshop.student_config("extended", param_scheduler=schedule, **{"train_cfg.max_epochs": 2})
    folder = tmp_path_factory.mktemp("finished")
    distill(workshop.options(config, folder))
    return config, folder


def test_the_rate_is_that_of_the_longer_schedule(workshop, finished, tmp_path, capsys):
    config, folder = finished
    longer, whole = tmp_path / "longer", tmp_path / "whole"
    shutil.copytree(folder, longer)
    distill(workshop.options(config, longer, resume=True, epochs=4))
    out, err = capsys.readouterr()
    said = re.search(r"extended: 2 epochs then, 4 now.*", err).group()
    assert out == ""
    assert "will not be those of a training that had 4 epochs from its start" in said
    distill(workshop.options(config, whole, epochs=4))
    assert checkpoints(longer)[0].name == f"iter_{4 * FRAMES}.pth"
    got, wanted = rates(longer), rates(whole)
    for step in range(2 * FRAMES + 1, 4 * FRAMES + 1):
        assert got[step] == pytest.approx(wanted[step], rel=1e-9), step
    assert got[2 * FRAMES] < wanted[2 * FRAMES], "the shorter schedule had come further down"
    # What was extended is resumed like any other.
    distill(workshop.options(config, longer, resume=True, epochs=4))
    assert "extended" not in capsys.readouterr().err.split("continues from")[-1]


def test_without_the_option_the_refusal_names_it(workshop, finished):
    config, folder = finished
    options = {"resume": True, "cfg_options": {"train_cfg.max_epochs": 3}}
    with pytest.raises(ConfigInvalid, match=r"max_epochs: 2 then, 3 now(.|\n)*made longer by --epochs 3"):
        distill(workshop.options(config, folder, **options))


def test_no_more_epochs_than_there_are_is_refused(workshop, finished):
    config, folder = finished
    with pytest.raises(ConfigInvalid, match=r"--epochs 1: .*iter_12\.pth has 2 epochs behind it"):
        distill(workshop.options(config, folder, resume=True, epochs=1))


def test_other_changes_are_refused_all_the_same(workshop, finished):
    config, folder = finished
    with pytest.raises(ConfigInvalid, match="seed: 0 then, 1 now"):
        distill(workshop.options(config, folder, resume=True, epochs=3, seed=1))


def test_two_numbers_of_epochs_are_refused():
    assert with_epochs({"amp": None}, 3) == {"amp": None, "train_cfg.max_epochs": 3}
    assert with_epochs({"train_cfg.max_epochs": 3}, 3) == {"train_cfg.max_epochs": 3}
    with pytest.raises(ConfigInvalid, match=r"--epochs 3 and --cfg-options train_cfg.max_epochs=2 differ"):
        with_epochs({"train_cfg.max_epochs": 2}, 3)


def test_no_epoch_is_refused(workshop, finished, tmp_path, capsys):
    config, _ = finished
    assert main([*workshop.arguments(config, tmp_path), "--cache", "any", "--epochs", "0"]) == 2
    assert "--epochs 0: expected 1 or more" in capsys.readouterr().err
