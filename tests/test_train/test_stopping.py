"""What stops a training without being a bug is told in words, and the training goes on with --resume."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import signal
from contextlib import contextmanager
from unittest import mock

import pytest
from mmengine.model import BaseModel
from train_cases import SPLIT, VERSION

from train import distill_from_cache, evaluate
from train.engine import hooks, runner

pytestmark = pytest.mark.usefixtures("one_thread")


def arguments(workshop, work_dir, store=None, *more):
    config = workshop.student_config("stopped", checkpoint_interval=2, **{"train_cfg.max_epochs": 1})
    return workshop.arguments(config, work_dir, "--cache", str(store or workshop.store("exact")), *more)


@contextmanager
def disk_full_after_the_first(module, name):
    """After the first call of a function, no file may have more than 20 kB.

    Any user can set such a limit, and it fails inside a write as a full disk does.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    original = getattr(module, name)

    def fill(*args):
        original(*args)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    try:
        with mock.patch.object(module, name, fill):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@contextmanager
def killed_at_step(number):
    """SIGKILL to the process that reads data, in the middle of a step."""
    original, steps = BaseModel.parse_losses, []

    def parse(self, losses):
        steps.append(1)
        if len(steps) == number:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
        return original(self, losses)

    with mock.patch.object(BaseModel, "parse_losses", parse):
        yield


# Checkpoints are written by Python, exports by torch's own writer, which knows no errno.
@pytest.mark.parametrize(("module", "name"), [(runner, "remove_strays"), (hooks, "export")])
def test_a_full_disk(workshop, tmp_path, capfd, module, name):
    work = tmp_path / "work"
    with disk_full_after_the_first(module, name):
        assert distill_from_cache.main(arguments(workshop, work)) == 2
    err = capfd.readouterr().err
    assert "WorkDirNotWritable: " in err
    assert "Make room" in err
    assert f"--resume continues from {work / 'iter_2.pth'}" in err
    assert "Traceback" not in err
    assert not list(work.glob(".*.tmp"))
    assert distill_from_cache.main(arguments(workshop, work, None, "--resume")) == 0


def test_a_killed_worker(workshop, tmp_path, capfd):
    work = tmp_path / "work"
    with killed_at_step(4):
        assert distill_from_cache.main(arguments(workshop, work, None, "--workers", "1")) == 2
    err = capfd.readouterr().err
    assert "DataWorkerDied: a process that reads data (pid " in err
    # torch does not always come to know how it ended.
    assert re.search(
        r"\(pid \d+\) (was ended by a signal \(Killed\)|ended)\. Most often there was too little", err
    )
    assert f"--resume continues from {work / 'iter_2.pth'}" in err
    assert "Traceback" not in err
    assert distill_from_cache.main(arguments(workshop, work, None, "--resume")) == 0


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_corrupt_sample(workshop, tmp_path, capfd, workers):
    store = tmp_path / "teacher.zarr"
    shutil.copytree(workshop.store("exact"), store)
    (path,) = store.glob("scenes/scene-0553/bev_feats/c.*")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert distill_from_cache.main(arguments(workshop, tmp_path / "work", store, "--workers", workers)) == 2
    err = capfd.readouterr().err
    (line,) = (line for line in err.splitlines() if line.startswith("Corrupt: "))
    assert "scene-0553" in line
    assert "bev_feats" in line
    assert "the training stopped; " in err
    assert "Traceback" not in err
    path.write_bytes(bytes(data[:100]) + bytes([data[100] ^ 1]) + bytes(data[101:]))
    assert distill_from_cache.main(arguments(workshop, tmp_path / "work", store, "--resume")) == 0


@pytest.fixture
def damaged(workshop, tmp_path):
    """The scenes, with one image that is damaged inside; and its name."""
    root = tmp_path / "nuscenes"
    shutil.copytree(workshop.dataroot, root, symlinks=True)
    path = sorted(root.glob("samples/CAM_BACK/*"))[-1]
    data = path.read_bytes()
    middle = len(data) * 2 // 3
    path.unlink()
    path.write_bytes(data[:middle] + b"\xff\xd9" + data[middle + 2 :])
    return root, path.name


@pytest.mark.parametrize("more", [(), ("--check-images",)])
def test_a_damaged_image_is_named(workshop, damaged, tmp_path, capfd, more):
    root, name = damaged
    given = arguments(workshop, tmp_path / "work", None, "--workers", "1", "--dataroot", str(root), *more)
    assert distill_from_cache.main(given) == 2
    err = capfd.readouterr().err
    assert name in err
    assert "damaged (" in err
    assert "Traceback" not in err
    assert ("  detection " in err) == (not more), "asked to, it looks before the first step"


def test_a_damaged_image_has_no_score(workshop, damaged, tmp_path, capfd):
    root, name = damaged
    where = ("--dataroot", str(root), "--version", VERSION, "--split", SPLIT, "--device", "cpu")
    given = [str(workshop.teacher_config), "--checkpoint", str(workshop.checkpoint), *where]
    for more in ((), ("--check-images",)):
        assert evaluate.main([*given, *more]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert name in err
        assert "damaged (" in err
