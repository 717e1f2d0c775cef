"""A few real kills of real dumps, and a real torchrun; benchmarks/chaos.py does many more."""

import os
import subprocess
import sys
from pathlib import Path

from dump_cases import TEACHER, contents

ROOT = Path(__file__).parents[2]
LIMIT_S = 300


def command(*words, **environment):
    """Run with this checkout importable. Returns what was printed; fails with it when the command does."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_killed_dumps():
    # One process, a data worker, and one of two processes, twice.
    said = command("benchmarks/chaos.py", "--only", "runs:0,2,4,8", "--seed", "1")
    assert said.count(": healed") == 4, said


def test_torchrun(peace, dataroot, tmp_path):
    store = tmp_path / "teacher.zarr"
    dump = [str(TEACHER), "--dataroot", str(dataroot), "--version", "v1.0-mini", "--split", "tiny"]
    dump += ["--untrained", "--threads", "1", "--workers", "1", "--out", str(store)]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "extract/dump_teacher.py"]
    out = command(*launch, *dump, OMP_NUM_THREADS="2")
    assert out.count("FPS") <= 1
    assert contents(store) == contents(peace)
