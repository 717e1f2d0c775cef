"""`focalcache COMMAND`: the scripts under one name, and where configs are found."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from camera3d.config_files import configs_folder, find_config
from camera3d.errors import ConfigInvalid
from extract.dump_teacher import command_line
from focalcache.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _own_argv(monkeypatch):
    """The console command sets it for the command that it runs."""
    monkeypatch.setattr(sys, "argv", ["pytest"])


@pytest.mark.parametrize("command", ["dump", "distil", "head", "train", "evaluate", "inspect"])
def test_usage_names_the_command(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: focalcache {command} ")


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(
        re.search(rf"^  {name} +{re.escape(COMMANDS[name].sentence)}", shown, re.M) for name in COMMANDS
    )
    assert "packaged configs" in shown


def test_unknown_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["dumb"])
    assert stop.value.code == 2
    assert "invalid choice: 'dumb'" in capsys.readouterr().err


def test_an_exit_code_is_handed_on(tmp_path, capsys):
    assert main(["inspect", "info", str(tmp_path / "nothing.zarr")]) == 2
    assert "StoreNotFound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("started", "processes", "expected"),
    [
        ("focalcache dump", None, "focalcache dump a.py"),
        ("focalcache dump", "8", "torchrun --nproc-per-node 8 -m focalcache dump a.py"),
        ("extract/dump_teacher.py", None, "python extract/dump_teacher.py a.py"),
        ("extract/dump_teacher.py", "8", "torchrun --nproc-per-node 8 extract/dump_teacher.py a.py"),
    ],
)
def test_a_dump_is_resumed_as_it_was_started(started, processes, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert command_line(["a.py"]) == expected


class TestFindConfig:
    def test_a_file_comes_first(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        own = Path("teacher/bevformer_base.py")
        own.parent.mkdir()
        own.touch()
        assert find_config(own) == own

    @pytest.mark.parametrize("path", ["teacher/bevformer_base.py", "configs/teacher/bevformer_base.py"])
    def test_a_packaged_one(self, path, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert find_config(path) == configs_folder() / "teacher/bevformer_base.py"

    @pytest.mark.parametrize("path", ["teacher/bevformer_bsae.py", "/nowhere/teacher/bevformer_bsae.py"])
    def test_neither_names_the_nearest(self, path):
        with pytest.raises(ConfigInvalid, match=r"no config file .*one of teacher/bevformer_base\.py"):
            find_config(path)

    def test_no_way_out_of_the_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigInvalid):
            find_config("teacher/../../setup.py")
