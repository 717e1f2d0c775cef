"""A reader that has enough ends no command with a traceback, nor changes its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORE = ROOT / "tests" / "golden" / "store-v2-exact"
TELL = "import sys; from cache_schema.stdout import tell; tell('much\\n' * 100_000); sys.exit(1)"
COMMANDS = {
    "a result longer than a pipe": (["-c", TELL], 1),
    "inspect": (["cache_schema/inspect_cache.py", "info", str(STORE)], 0),
    "print config of a dump": (["extract/dump_teacher.py", "configs/demo/teacher.py", "--print-config"], 0),
    "print config of a training": (
        ["train/train_detector.py", "configs/demo/student.py", "--print-config"],
        0,
    ),
}


@pytest.mark.parametrize(("command", "code"), COMMANDS.values(), ids=COMMANDS)
def test_a_reader_that_leaves(command, code, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # The reader is gone before the first line: whoever writes is told so every time.
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), "Traceback" in err, "BrokenPipe" in err) == (code, False, False), err


def test_no_stdout_at_all():
    done = subprocess.run(
        ["bash", "-c", '"$0" cache_schema/inspect_cache.py info "$1" >&-', sys.executable, str(STORE)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
