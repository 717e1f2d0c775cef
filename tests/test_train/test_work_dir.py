"""A work folder is one training's: not that of two at once, nor of one after another."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from train_cases import ROOT

from camera3d.errors import ConfigInvalid
from train import train_detector
from train.engine.work_dir import WorkDirTaken, work_folder

HOLD = """
import sys, torch
from train.engine.work_dir import work_folder
with work_folder(sys.argv[1], resume=False):
    # A data worker lives on for a while when its parent is killed.
    loader = iter(torch.utils.data.DataLoader([0, 1], num_workers=1))
    print(loader._workers[0].pid, flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder):
    """Another process's training in that folder, and its data worker's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_two_trainings_in_one_folder(workshop, tmp_path, capsys):
    with held(tmp_path) as (process, worker):
        assert train_detector.main(workshop.arguments(workshop.student_config("held"), tmp_path)) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"WorkDirTaken: --work-dir {tmp_path} is in use by process {process.pid} on " in err
        assert "another folder" in err
        assert not list(tmp_path.glob("*.pth"))
        # The lock ends with its process, not with the workers that it leaves behind.
        stopped = subprocess.run(["kill", "-STOP", str(worker)], check=False)
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            with work_folder(tmp_path, resume=False):
                assert stopped.returncode == 0
        finally:
            subprocess.run(["kill", "-KILL", str(worker)], check=False)


@pytest.mark.parametrize("name", ["last.pth", "best.pth", "iter_4.pth"])
def test_a_fresh_start_in_the_folder_of_another(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    with (
        pytest.raises(WorkDirTaken, match=f"holds {name} of a run: .*--resume"),
        work_folder(tmp_path, resume=False),
    ):
        pass
    assert (tmp_path / name).read_bytes() == b"weights"


@pytest.mark.parametrize("name", ["last.pth", "best.pth"])
def test_exports_alone_are_nothing_to_resume(tmp_path, name):
    (tmp_path / name).write_bytes(b"weights")
    with (
        pytest.raises(WorkDirTaken, match="no checkpoint to continue from"),
        work_folder(tmp_path, resume=True),
    ):
        pass


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    for name in (".iter_4.pth.99.tmp", ".iter_4.pth.sha256.99.tmp", ".last.pth.99.tmp", "mine.txt"):
        (tmp_path / name).write_text("")
    with work_folder(tmp_path, resume=True):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "mine.txt"]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigInvalid, match="cannot be written to"),
        work_folder(tmp_path / "file/work", resume=False),
    ):
        pass
