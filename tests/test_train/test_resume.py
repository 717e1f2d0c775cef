"""A training that is killed and resumed ends with the weights of one that was left alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from train_cases import FRAMES, ROOT, weights_of

from camera3d.errors import ConfigInvalid
from train.engine.checkpoints import checkpoints
from train.engine.run import distill

pytestmark = pytest.mark.usefixtures("one_thread")
LIMIT_S = 120.0
EPOCHS = 2
PLANS = {
    "plain": {},
    "averaged": {"ema": {"decay": 0.9, "ramp_steps": 3}},
    "accumulated in bfloat16": {"optim_wrapper.accumulative_counts": 2, "amp": "bf16"},
    # Of the first segment, two frames see their history.
    "streamed": {
        "history": "stream",
        "segment_length": 3,
        "single_frame_steps": 1,
        "checkpoint_interval": 2,
    },
}

ONE_PLAN = pytest.mark.parametrize("interrupted", ["plain"], indirect=True)


@pytest.fixture(scope="module", params=list(PLANS))
def interrupted(request, one_thread, workshop, tmp_path_factory):
    """A config, the work folder of a run that was killed, and that of a run that was not."""
    config = workshop.student_config(
        f"plan-{list(PLANS).index(request.param)}",
        **{"checkpoint_interval": 4, "train_cfg.max_epochs": EPOCHS, **PLANS[request.param]},
    )
    killed, whole = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("whole")
    arguments = workshop.arguments(config, killed, "--cache", str(workshop.store("exact")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "train/distill_from_cache.py"), *arguments]
    with (killed / "stderr").open("w") as stderr:
        process = subprocess.Popen(command, env=environment, stdout=stderr, stderr=stderr)
    try:
        until = time.monotonic() + LIMIT_S
        while not (killed / "last.pth").exists():
            assert process.poll() is None, (killed / "stderr").read_text()
            assert time.monotonic() < until, "no checkpoint came"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    distill(workshop.options(config, whole, workers=1))
    return config, killed, whole


def test_killed_and_resumed_is_as_never_stopped(workshop, interrupted, tmp_path):
    config, killed, whole = interrupted
    reached = checkpoints(killed)[0]
    assert reached.name != f"iter_{EPOCHS * FRAMES}.pth", "it was killed too late"
    assert int(reached.stem.removeprefix("iter_")) % FRAMES, "it was not killed in the middle of an epoch"
    shutil.copytree(killed, tmp_path / "resumed")
    distill(workshop.options(config, tmp_path / "resumed", resume=True))
    got, wanted = weights_of(tmp_path / "resumed/last.pth"), weights_of(whole / "last.pth")
    assert set(got) == set(wanted)
    for name in wanted:
        assert torch.equal(got[name], wanted[name]), name
    started = weights_of(killed / "last.pth")
    assert any(not torch.equal(started[name], wanted[name]) for name in wanted)


@ONE_PLAN
def test_an_empty_pointer_of_a_killed_run_does_no_harm(workshop, interrupted, tmp_path):
    config, killed, whole = interrupted
    shutil.copytree(killed, tmp_path / "resumed")
    (tmp_path / "resumed/last_checkpoint").write_text("")
    (tmp_path / "resumed/.iter_16.pth.99.tmp").write_bytes(b"half")
    distill(workshop.options(config, tmp_path / "resumed", resume=True))
    got, wanted = weights_of(tmp_path / "resumed/last.pth"), weights_of(whole / "last.pth")
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    assert not list((tmp_path / "resumed").glob(".*.tmp")), "what a kill left half-written is still there"


@ONE_PLAN
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seed": 1}, "seed: 0 then, 1 now"),
        ({"batch_size": 3}, "samples a step"),
        (
            {"cfg_options": {"optim_wrapper.optimizer.lr": 1.0}},
            "optim_wrapper.optimizer.lr: 0.0002 then, 1.0 now",
        ),
        (
            {"cfg_options": {"distiller.terms.bev_heatmap.weight": 7.0}},
            "bev_heatmap.weight: not given then, 7.0 now",
        ),
        ({"cfg_options": {"train_cfg.max_epochs": 9}}, "train_cfg.max_epochs: 2 then, 9 now"),
    ],
)
def test_other_steps_cannot_be_gone_on_with(workshop, interrupted, changed, says):
    config, killed, _ = interrupted
    with pytest.raises(ConfigInvalid, match=says):
        distill(workshop.options(config, killed, resume=True, **changed))


@ONE_PLAN
def test_a_new_run_does_not_start_in_the_folder_of_another(workshop, interrupted):
    config, killed, _ = interrupted
    with pytest.raises(ConfigInvalid, match="--resume, or give another folder"):
        distill(workshop.options(config, killed))


@ONE_PLAN
def test_another_store_cannot_be_gone_on_with(workshop, interrupted):
    config, killed, _ = interrupted
    terms = {"distiller.terms": {"_delete_": True, "bev_heatmap": {}}}
    with pytest.raises(ConfigInvalid, match="targets: "):
        distill(
            workshop.options(
                config, killed, resume=True, cache=str(workshop.store("focal")), cfg_options=terms
            )
        )


@ONE_PLAN
def test_a_finished_run_exports_again(workshop, interrupted, tmp_path):
    config, _, whole = interrupted
    shutil.copytree(whole, tmp_path / "again")
    (tmp_path / "again/last.pth").unlink()
    distill(workshop.options(config, tmp_path / "again", resume=True))
    got, wanted = weights_of(tmp_path / "again/last.pth"), weights_of(whole / "last.pth")
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


@ONE_PLAN
def test_resume_without_a_checkpoint_starts_at_the_beginning(workshop, interrupted, tmp_path):
    config, _, whole = interrupted
    distill(workshop.options(config, tmp_path, resume=True))
    got, wanted = weights_of(tmp_path / "last.pth"), weights_of(whole / "last.pth")
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_nothing_half_written_under_a_final_name(workshop, tmp_path, monkeypatch):
    save, calls = torch.save, []

    def full_disk(what, where, *args, **options):
        calls.append(where)
        if len(calls) > 2:
            save({}, where)
            raise OSError(28, "No space left on device")
        return save(what, where, *args, **options)

    monkeypatch.setattr(torch, "save", full_disk)
    config = workshop.student_config("full-disk", checkpoint_interval=2)
    with pytest.raises(Exception, match="No space left"):
        distill(workshop.options(config, tmp_path))
    # The first checkpoint and its export are whole, and of the second there is nothing.
    assert sorted(path.name for path in tmp_path.rglob("*.pth*")) == [
        "iter_2.pth",
        "iter_2.pth.sha256",
        "last.pth",
    ]
    assert weights_of(tmp_path / "last.pth")
