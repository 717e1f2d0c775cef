"""The stages behind `make demo`: run once, reused by name and command, never taken for another's."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from stages import BATCH_SIZE, StageFailed, Stages, schedule


def appending(path: Path, word: str = "run") -> list[str]:
    """A command that leaves a line in a file each time it runs."""
    return ["-c", f"open({str(path)!r}, 'a').write({word!r} + '\\n')"]


def test_a_finished_stage_is_not_run_again(tmp_path, capsys):
    stages, log = Stages(tmp_path / "work"), tmp_path / "log"
    first = stages.run("one", appending(log))
    again = stages.run("one", appending(log))
    assert log.read_text() == "run\n"
    assert again == first > 0
    assert "one: reused" in capsys.readouterr().err


def test_a_failed_stage_is_run_again(tmp_path):
    stages, log = Stages(tmp_path / "work"), tmp_path / "log"
    command = appending(log)
    with pytest.raises(StageFailed, match="one ended with exit code 3"):
        stages.run("one", ["-c", f"{command[1]}; raise SystemExit(3)"])
    stages.run("one", command)
    assert log.read_text() == "run\nrun\n"


def test_results_of_another_command_are_refused(tmp_path):
    stages, log = Stages(tmp_path / "work"), tmp_path / "log"
    stages.run("one", appending(log))
    with pytest.raises(StageFailed, match=r"one\.json was made by another command"):
        stages.run("one", appending(log, "other"))
    assert log.read_text() == "run\n"


def test_threads_reach_the_command(tmp_path):
    stages, log = Stages(tmp_path / "work", threads=3), tmp_path / "threads"
    stages.run("one", ["-c", f"import os; open({str(log)!r}, 'w').write(os.environ['OMP_NUM_THREADS'])"])
    assert log.read_text() == "3"


def test_several_processes_run_a_script_each(tmp_path):
    script, stages = tmp_path / "script.py", Stages(tmp_path / "work")
    script.write_text(
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1], os.environ['RANK']).write_text(os.environ['WORLD_SIZE'])\n"
    )
    stages.run("both", [script, tmp_path], processes=2)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2", "2"]
    assert json.loads((tmp_path / "work" / "both.json").read_text())["seconds"] > 0


@pytest.mark.parametrize("sharing", [1, 2])
def test_processes_share_the_batch(sharing):
    settings = schedule(4, sharing)
    assert settings["train_cfg.max_epochs"] == settings["train_cfg.val_interval"] == 4
    assert settings.get("train_dataloader.batch_size", BATCH_SIZE) * sharing == BATCH_SIZE
