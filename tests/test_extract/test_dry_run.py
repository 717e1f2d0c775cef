"""A dry run checks what a dump would, and writes nothing; --print-config needs no data."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_cases import IMAGE_HW, SCENES, write_small_config

from extract import dry_run
from extract.dump_teacher import main


@pytest.fixture
def arguments(tiny_nuscenes, tmp_path) -> list[str]:
    """A dump of an untrained teacher into out/teacher.zarr."""
    dataroot = tiny_nuscenes(scenes=SCENES, image_hw=IMAGE_HW, can_bus=True)
    (tmp_path / "out").mkdir()
    return [
        *(
            str(write_small_config(tmp_path)),
            "--untrained",
            "--dataroot",
            str(dataroot),
            "--version",
            "v1.0-mini",
        ),
        *(
            "--split",
            "mini_train",
            "--out",
            str(tmp_path / "out/teacher.zarr"),
            "--workers",
            "0",
            "--threads",
            "1",
        ),
    ]


@pytest.mark.parametrize("profile", ["exact", "focal"])
def test_nothing_is_written(arguments, tmp_path, capsys, profile):
    assert main([*arguments, "--dry-run", "--profile", profile]) == 0
    said = capsys.readouterr()
    assert list((tmp_path / "out").iterdir()) == []
    for words in (
        "teacher.zarr, profile",
        "UNTRAINED, seed 0",
        "images checked",
        "bev_feats",
        "to come",
        " free",
    ):
        assert words in said.out
    assert said.out.endswith("dry run: nothing was written\n")
    assert "device: c" in said.err


def test_a_disk_without_room(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "free_nbytes", lambda store: 1000)
    assert main([*arguments, "--dry-run"]) == 2
    assert "its disk has 0.0 MB (1,000 bytes): make room, or take --profile" in capsys.readouterr().err
    monkeypatch.setattr(dry_run, "free_nbytes", lambda store: 1_000_000)
    assert main([*arguments, "--dry-run", "--profile", "focal"]) == 0
    assert "MAY NOT FIT" in capsys.readouterr().out


def test_a_broken_image(arguments, tmp_path, capsys):
    dataroot = Path(arguments[3])
    copied = tmp_path / "copied"
    shutil.copytree(dataroot, copied)
    victim = sorted(copied.glob("samples/CAM_BACK/*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    assert main([*arguments, "--dataroot", str(copied), "--dry-run"]) == 2
    assert victim.name in capsys.readouterr().err


def test_the_config_is_printed_without_data(tmp_path, capsys):
    config = write_small_config(tmp_path)
    assert main([str(config), "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "num_queries=12" in printed
    again = tmp_path / "again.py"
    again.write_text(printed)
    assert main([str(again), "--print-config"]) == 0
    assert capsys.readouterr().out == printed


def test_the_student_of_a_distillation_is_no_teacher(arguments, capsys):
    assert main(["distill/detr3d_r101_to_r50_fd3d.py", *arguments[1:]]) == 2
    assert "a store is made by its teacher: give" in capsys.readouterr().err
