"""The GPU suite: all of it in small, and what it makes of a stage that fails, crashes or hangs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import gpu_suite
import pytest
from gpu_stages import STAGES, Context, Stage
from gpu_stages.launch import forked, run_stage, started
from gpu_stages.records import FAILED, OK, OUT_OF_TIME, Result, ResultInvalid, read_result
from gpu_stages.report import report, shown

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "benchmarks" / "gpu_suite.py"


@pytest.fixture
def context(tmp_path) -> Context:
    (tmp_path / "work").mkdir()
    (tmp_path / "out").mkdir()
    return Context(out=tmp_path / "out", work=tmp_path / "work", tiny=True)


def a_stage(monkeypatch, **measurements) -> Stage:
    """A stage of these functions."""
    module = types.ModuleType("gpu_stages.pretended")
    module.measurements = lambda context: iter(measurements.items())
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Stage(name="pretended", title="A stage", module="pretended", minutes=1, limit=1)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise ValueError("a wrong number")


def out_of_memory() -> None:
    import torch

    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")


def broken_device() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def hang() -> None:
    time.sleep(600)


def by_name(result: Result) -> dict[str, dict]:
    return {row["measured"]: row for row in result.rows}


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    out = tmp_path_factory.mktemp("gpu") / "results"
    command = [sys.executable, str(SUITE), "--dry-run", "--out", str(out), "--minutes", "60"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return done, out


def test_every_stage_runs_in_small(dry_run):
    done, out = dry_run
    results = {stage.name: read_result(out, stage.name) for stage in STAGES}
    faults = {
        name: result and [result.fault, *(row["error"] for row in result.rows if "error" in row)]
        for name, result in results.items()
        if result is None or not result.sound
    }
    assert not faults, done.stderr
    assert done.returncode == 0
    assert done.stdout.strip() == str(out / "report.md")
    assert all(result.rows for result in results.values())


def test_the_small_run_measures_what_it_says(dry_run):
    _, out = dry_run
    rows = {stage.name: read_result(out, stage.name).rows for stage in STAGES}
    assert all(row["alike"] for row in rows["parity"])
    assert {row["measured"].rsplit(", ", 1)[1] for row in rows["forward"]} == {"fp32", "bf16"}
    assert rows["waits"][0]["numbers read"] > 0
    assert rows["rerun"][0]["bytes equal"] is True
    assert rows["rerun"][0]["same digest"] is True
    sources = {row["measured"].split(", ")[1] for row in rows["steps"]}
    assert sources == {"student alone", "exact", "focal", "live_fd"}
    assert [row["samples"] for row in rows["steps"] if "more samples" in row["measured"]] == [2]
    assert all(row["frames a second"] > 0 for row in rows["dump"][1:])
    assert all(0 <= row["NDS"] < 1 for row in rows["gain"])


def test_the_report_is_made_of_the_results(dry_run):
    _, out = dry_run
    text = (out / "report.md").read_text()
    for stage in STAGES:
        assert f"## {stage.title}" in text
    assert "the numbers say nothing" in text
    assert "| environment | ok" in text


def test_the_list_says_what_there_is(capsys):
    assert gpu_suite.main(["--list"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:-1]] == [stage.name for stage in STAGES]
    assert all(importlib.util.find_spec(f"gpu_stages.{stage.module}") for stage in STAGES)


def test_a_run_of_nine_minutes_has_time_for_all():
    assert sum(stage.minutes for stage in STAGES) <= 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--out: name the folder"),
        (["--out", "x", "--dry-run", "--minutes", "0"], "--minutes 0: expected more than 0"),
        (["--out", "x", "--dry-run", "--dataroot", "y"], "--version and --split go together"),
        (["--out", "x", "--only", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_what_cannot_be_is_said_at_the_start(arguments, says, capsys):
    with pytest.raises(SystemExit) as left:
        gpu_suite.main(arguments)
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_without_a_gpu_the_way_out_is_named(capsys, monkeypatch):
    monkeypatch.setattr(gpu_suite, "_has_gpu", lambda: False)
    with pytest.raises(SystemExit):
        gpu_suite.main(["--out", "x"])
    assert "--dry-run" in capsys.readouterr().err


def test_what_fails_or_crashes_costs_a_measurement(context, monkeypatch):
    stage = a_stage(
        monkeypatch,
        first=lambda: {"number": 1},
        fails=fail,
        too_large=out_of_memory,
        crashes=crash,
        breaks=broken_device,
        several=lambda: [{"number": 2}, {"number": 3}],
    )
    result = run_stage(stage, context, limit_s=120, start=forked)
    found = by_name(result)
    assert result.status == OK
    assert [row["number"] for row in result.rows if "number" in row] == [1, 2, 3]
    assert found["fails"]["error"] == "ValueError: a wrong number"
    assert found["too_large"]["error"] == "out of memory"
    assert "SIGKILL" in found["crashes"]["error"]
    assert "illegal memory access" in found["breaks"]["error"]
    assert not result.sound
    assert "a wrong number" in (context.out / "pretended.log").read_text()


def test_what_hangs_is_ended_and_the_rows_before_are_kept(context, monkeypatch):
    stage = a_stage(monkeypatch, first=lambda: {"number": 1}, hangs=hang, never=lambda: {"number": 2})
    start = time.monotonic()
    result = run_stage(stage, context, limit_s=3, start=forked)
    assert time.monotonic() - start < 60
    assert result.status == OUT_OF_TIME
    assert "during hangs" in result.fault
    assert result.rows == [{"measured": "first", "number": 1}]


def test_a_stage_that_cannot_begin_says_why(context, monkeypatch):
    stage = a_stage(monkeypatch)
    sys.modules["gpu_stages.pretended"].measurements = lambda context: iter([fail()])
    result = run_stage(stage, context, limit_s=120, start=forked)
    assert result.status == FAILED
    assert "a wrong number" in result.fault


def test_rows_that_are_there_are_not_measured_again(context, monkeypatch):
    stage = a_stage(monkeypatch, first=fail, second=lambda: {"number": 2})
    earlier = [{"measured": "first", "number": 1}]
    result = run_stage(stage, context, limit_s=120, earlier=earlier, start=forked)
    assert result.sound
    assert [row["number"] for row in result.rows] == [1, 2]


def test_a_new_interpreter_runs_a_stage(context):
    result = run_stage(STAGES[0], context, limit_s=600, start=started)
    assert result.sound, (context.out / "environment.log").read_text()
    assert "Python" in result.environment
    assert by_name(result)["pictures"] == {"measured": "pictures", "read back": True}


def kept(folder: Path, stage: str, **changes) -> Result:
    facts = {"stage": stage, "status": OK, "seconds": 1.0, "tiny": True, "rows": [{"measured": "m", "n": 1}]}
    result = Result(**facts | changes)
    folder.mkdir(exist_ok=True)
    result.write(folder)
    return result


def test_a_folder_with_results_is_only_gone_on_with_when_asked(tmp_path, capsys):
    kept(tmp_path / "out", "environment")
    assert gpu_suite.main(["--dry-run", "--out", str(tmp_path / "out")]) == 2
    assert f"--resume {tmp_path / 'out'}" in capsys.readouterr().err


def test_a_dry_runs_results_are_none_of_a_gpu(tmp_path, capsys):
    kept(tmp_path / "gpu", "environment", tiny=False)
    arguments = ["--dry-run", "--out", str(tmp_path / "out"), "--resume", str(tmp_path / "gpu")]
    assert gpu_suite.main(arguments) == 2
    assert "environment is of a run on a GPU" in capsys.readouterr().err


def test_a_result_that_is_damaged_is_named(tmp_path):
    (tmp_path / "steps.json").write_text('{"stage": "steps"')
    with pytest.raises(ResultInvalid, match=r"steps\.json is no result"):
        read_result(tmp_path, "steps")


def test_resume_runs_what_is_missing_or_went_wrong(tmp_path, monkeypatch):
    before, out = tmp_path / "before", tmp_path / "out"
    kept(before, "environment")
    rows = [{"measured": "good", "n": 1}, {"measured": "bad", "error": "out of memory"}]
    kept(before, "operators", rows=rows)
    ran = {}

    def run(stage, context, *, earlier, **options):
        ran[stage.name] = earlier
        return Result(
            stage=stage.name, status=OK, seconds=1.0, tiny=True, rows=[*earlier, {"measured": "new"}]
        )

    monkeypatch.setattr(gpu_suite, "run_stage", run)
    monkeypatch.setattr(gpu_suite, "_imported", lambda: forked)
    arguments = ["--dry-run", "--out", str(out), "--resume", str(before)]
    assert gpu_suite.main([*arguments, "--only", "environment", "operators", "parity"]) == 0
    assert ran == {"operators": [{"measured": "good", "n": 1}], "parity": []}
    assert json.loads((out / "environment.json").read_text())["rows"] == [{"measured": "m", "n": 1}]
    assert not list(out.glob(".*"))


def test_what_there_was_no_time_for_is_in_the_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu_suite, "_imported", lambda: forked)
    arguments = ["--dry-run", "--out", str(tmp_path / "out"), "--minutes", "0.1", "--only", "steps"]
    assert gpu_suite.main(arguments) == 1
    assert "no time left, --resume" in capsys.readouterr().err
    assert "| steps | no time left" in (tmp_path / "out" / "report.md").read_text()


def test_rows_of_another_machine_are_told_apart(tmp_path):
    results = [
        Result(stage="environment", status=OK, seconds=1.0, tiny=False, environment="machine A"),
        Result(stage="operators", status=FAILED, seconds=1.0, tiny=False, environment="B", fault="why"),
    ]
    text = report(STAGES[:2], results, left_out={})
    assert text.startswith("# One GPU\n\nmachine A\n")
    assert "Measured elsewhere: B" in text
    assert "**failed**: why" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "yes"), (False, "NO"), (None, "-"), (0.012345, "0.0123"), (12345.6, "12,346"), ("a|b", "a/b")],
)
def test_numbers_have_the_digits_they_are_worth(value, text):
    assert shown(value) == text
