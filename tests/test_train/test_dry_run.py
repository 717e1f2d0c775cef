"""A dry run checks what a training needs, and writes nothing; --print-config needs no data."""

from __future__ import annotations

import shutil

import pytest

from train import distill_from_cache, train_detector
from train.engine import dry_run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_distillation(workshop, tmp_path, capsys):
    arguments = workshop.arguments(workshop.student_config(), tmp_path / "work", "--dry-run")
    assert distill_from_cache.main([*arguments, "--cache", str(workshop.store("exact"))]) == 0
    said = capsys.readouterr()
    assert not (tmp_path / "work").exists()
    for words in (
        "profile exact, digest ",
        "weights sha256 ",
        "bev_heatmap weight 0.1",
        "all there",
        "are free",
    ):
        assert words in said.out
    assert "query logit_weight 2 box_weight 0.25" in said.out
    assert said.out.endswith("dry run: nothing was written\n")
    assert "device: c" in said.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--cfg-options", "optim_wrapper.optimizer.speed=2"), "optim_wrapper.optimizer.speed: unknown"),
        (("--cfg-options", "param_scheduler.0.factor=3"), "param_scheduler.0.factor: unknown"),
        (("--work-dir", f"{__file__}/work"), "test_dry_run.py cannot be written to"),
    ],
)
def test_what_is_wrong_is_found(workshop, tmp_path, capsys, more, says):
    arguments = workshop.arguments(workshop.student_config(), tmp_path / "work", "--dry-run", *more)
    assert train_detector.main(arguments) == 2
    assert says in capsys.readouterr().err


def test_a_schedule_of_epochs_that_moves_every_step(workshop, tmp_path, capsys):
    schedule = [{"type": "CosineAnnealingLR", "by_epoch": True, "begin": 0, "convert_to_iter_based": True}]
    config = workshop.student_config("every-step", param_scheduler=schedule)
    assert train_detector.main(workshop.arguments(config, tmp_path / "work", "--dry-run")) == 0
    assert "CosineAnnealingLR" in capsys.readouterr().out


def test_a_disk_without_room(workshop, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: usage)
    arguments = workshop.arguments(workshop.student_config(), tmp_path / "work", "--dry-run")
    assert train_detector.main(arguments) == 2
    assert "0.0 MB are free. Make room" in capsys.readouterr().err


def test_the_config_is_printed_without_data(workshop, capsys):
    config = str(workshop.student_config())
    assert distill_from_cache.main([config, "--print-config", "--cfg-options", "amp=bf16"]) == 0
    assert "amp = 'bf16'" in capsys.readouterr().out
    assert distill_from_cache.main([config, "--print-config", "--cfg-options", "ampp=bf16"]) == 2
    assert "ampp: unknown; did you mean amp?" in capsys.readouterr().err
