"""A few real kills of a real parallel dump, and a real torchrun; benchmarks/kill_dump.py does fifty."""

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
    table = command("benchmarks/kill_dump.py", "--kills", "4", "--scenes", "6", "--seed", "1")
    assert "| **all** | **4** |" in table


def test_torchrun(peace, dataroot, tmp_path):
    store = tmp_path / "teacher.zarr"
    dump = [str(TEACHER), "--dataroot", str(dataroot), "--version", "v1.0-mini", "--split", "tiny"]
    dump += ["--untrained", "--threads", "1", "--workers", "1", "--out", str(store)]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "extract/dump_teacher.py"]
    out = command(*launch, *dump, OMP_NUM_THREADS="2")
    assert out.count("FPS") <= 1
    assert contents(store) == contents(peace)
