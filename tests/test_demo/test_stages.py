"""The stages behind `make demo`: run once, reused by name and command, never taken for another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.stages import StageFailed, Stages


def until(condition: Callable[[], object], seconds: float = 240.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


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
    command = ["-c", f"{appending(log)[1]}; raise SystemExit(len(open({str(log)!r}).readlines()) < 2)"]
    with pytest.raises(StageFailed, match="one ended with exit code 1"):
        stages.run("one", command)
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


def test_results_that_were_removed_are_made_again(tmp_path):
    stages, log = Stages(tmp_path / "work"), tmp_path / "log"
    for _ in range(2):
        stages.run("one", appending(log), makes=log)
    assert log.read_text() == "run\n"
    log.unlink()
    stages.run("one", appending(log), makes=log)
    assert log.read_text() == "run\n"


@pytest.mark.parametrize("call", ["one()", "stages.together(one)"], ids=["alone", "beside others"])
def test_a_stopped_stage_takes_its_process_with_it_and_keeps_its_seconds(tmp_path, call):
    stages, ready = Stages(tmp_path / "work"), tmp_path / "ready"
    waiting = ["-c", f"import os, time; open({str(ready)!r}, 'w').write(str(os.getpid())); time.sleep(600)"]
    script = (
        "from pathlib import Path\n"
        "from demo.stages import Stages, stop_like_ctrl_c\n"
        "stop_like_ctrl_c()\n"
        f"stages = Stages(Path({str(stages.folder)!r}))\n"
        f"def one(): stages.run('one', {waiting!r})\n"
        f"{call}\n"
    )
    caller = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    until(lambda: ready.is_file() and ready.read_text())
    assert stages.under_way("one")
    caller.terminate()
    assert caller.wait(timeout=120) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(ready.read_text()), 0)
    assert not stages.under_way("one")
    assert json.loads((stages.folder / "one.part.json").read_text())["seconds"] > 0
    assert not (stages.folder / "one.json").exists()


def test_a_failure_says_where_its_output_is(tmp_path):
    stages = Stages(tmp_path / "work")
    with pytest.raises(StageFailed, match=r"one\.log"):
        stages.run("one", ["-c", "print('what was wrong'); raise SystemExit(2)"])
    assert (tmp_path / "work" / "one.log").read_text() == "what was wrong\n"


def test_a_file_that_changed_is_refused(tmp_path):
    stages, log, weights = Stages(tmp_path / "work"), tmp_path / "log", tmp_path / "weights"
    weights.write_text("one")
    for _ in range(2):
        stages.run("one", appending(log), reads=[weights])
    assert log.read_text() == "run\n"
    weights.write_text("two")
    with pytest.raises(StageFailed, match=r"weights: changed since .*one\.json was made of it"):
        stages.run("one", appending(log), reads=[weights])


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(StageFailed, match=r"weights cannot be read"):
        Stages(tmp_path / "work").run("one", ["-c", ""], reads=[tmp_path / "weights"])


def test_sequences_run_at_the_same_time_and_in_order(tmp_path):
    stages, log = Stages(tmp_path / "work"), tmp_path / "log"
    # Each waits for what only the other one makes.
    waiting = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\n"

    def meet(name: str, other: str) -> None:
        stages.run(name, ["-c", f"open({str(tmp_path / name)!r}, 'w')"])
        stages.run(f"{name} waits", ["-c", waiting, tmp_path / other])
        stages.run(f"{name} after", appending(log, name))

    stages.together(lambda: meet("one", "two"), lambda: meet("two", "one"))
    assert sorted(log.read_text().split()) == ["one", "two"]


def test_a_failure_ends_what_runs_beside_it(tmp_path):
    stages, log = Stages(tmp_path / "work"), tmp_path / "log"

    def endless() -> None:
        stages.run("endless", ["-c", f"open({str(tmp_path / 'begun')!r}, 'w'); import time; time.sleep(600)"])
        stages.run("never", appending(log))

    def failing() -> None:
        until((tmp_path / "begun").exists)
        stages.run("failing", ["-c", "raise SystemExit(3)"])

    with pytest.raises(StageFailed, match="failing ended with exit code 3"):
        stages.together(endless, failing)
    assert not log.exists()
    assert not (stages.folder / "endless.json").exists()
