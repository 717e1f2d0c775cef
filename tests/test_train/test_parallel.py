"""Two processes with a sample each do what one process with two does; and the order of frames behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_cases import FRAMES, ROOT, TERMS, recorded_losses, weights_of

from train.engine.run import distill
from train.engine.sampler import ResumableSampler

# Nothing is drawn in the model and nothing normalised over the batch: the student's BEV map has the teacher's
# size, so that no restoring layer with its BatchNorm is needed.
UNDRAWN = {
    "model.grid_mask_prob": 0.0,
    "model.pts_bbox_head.dropout": 0.0,
    "model.pts_bbox_head.bev_hw": (16, 16),
    "train_cfg.max_epochs": 1,
}
STREAMED = {"history": "stream", "segment_length": 3, "single_frame_steps": 0}
UNMASKED = {"terms": {**TERMS, "pv_generation": {"mask_ratio": 0.0}}, "bev_mask_ratio": 0.0}
STEPS = FRAMES // 2
# Sums in another order; the first steps of AdamW divide small gradients by their own size.
SUMS = 2e-4
MOVED = 5e-5


@pytest.fixture(scope="module", params=["queue", "stream"])
def one_process(request, workshop, tmp_path_factory):
    """Config, losses and weights of one process with two samples a step."""
    history = STREAMED if request.param == "stream" else {}
    config = workshop.student_config(f"undrawn-{request.param}", distiller=UNMASKED, **UNDRAWN, **history)
    folder, before = tmp_path_factory.mktemp("one"), torch.get_num_threads()
    torch.set_num_threads(1)
    with recorded_losses() as steps:
        path = distill(workshop.options(config, folder, batch_size=2))
    torch.set_num_threads(before)
    return config, steps, weights_of(path)


def close(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, values in wanted.items():
        torch.testing.assert_close(
            got[name], values, rtol=1e-3, atol=MOVED, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_two_processes_are_one_with_twice_the_batch(workshop, one_process, tmp_path):
    config, alone, weights = one_process
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = workshop.arguments(config, tmp_path / "two", "--cache", str(workshop.store("exact")))
    steps = str(tmp_path / "steps")
    finished = subprocess.run(
        [*torchrun, str(ROOT / "tests/train_steps.py"), steps, *arguments, "--batch-size", "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split() == [str(tmp_path / "two/last.pth")]
    ranks = [json.loads((tmp_path / f"steps.{rank}.json").read_text()) for rank in (0, 1)]
    assert len(alone) == len(ranks[0]) == len(ranks[1]) == STEPS
    assert ranks[0][0]["loss"] != ranks[1][0]["loss"], "both saw the same frames"
    for step, (both, *parts) in enumerate(zip(alone, *ranks, strict=True)):
        for name, value in both.items():
            mean = sum(part[name] for part in parts) / 2
            assert mean == pytest.approx(value, rel=SUMS), (step, name)
    close(weights_of(tmp_path / "two/last.pth"), weights)


@pytest.mark.parametrize("one_process", ["queue"], indirect=True)
def test_two_accumulated_steps_see_one_batch(workshop, one_process, tmp_path, one_thread):
    _, alone, _ = one_process
    accumulating = {**UNDRAWN, "optim_wrapper.accumulative_counts": 2}
    config = workshop.student_config("accumulating", distiller=UNMASKED, **accumulating)
    with recorded_losses() as steps:
        distill(workshop.options(config, tmp_path, batch_size=1))
    assert len(steps) == FRAMES
    # The detection loss is a mean over the positives of what is seen at once: only the terms are alike.
    terms = [name for name in alone[0] if name != "loss" and not name.endswith(("loss_cls", "loss_bbox"))]
    # The second sample of each pair meets the weights that the first one met.
    for step, both in enumerate(alone):
        tolerance = SUMS if step == 0 else 1e-2
        for name in terms:
            mean = (steps[2 * step][name] + steps[2 * step + 1][name]) / 2
            assert mean == pytest.approx(both[name], rel=tolerance), (step, name)


SIZES = {"length": st.integers(1, 60), "seed": st.integers(0, 2**31), "epoch": st.integers(0, 50)}


def order(length: int, seed: int, epoch: int, *, rank: int = 0, world: int = 1, start: int = 0) -> list[int]:
    sampler = ResumableSampler(range(length), seed=seed, rank=rank, world=world)
    sampler.set_epoch(epoch, start)
    return list(sampler)


@given(world=st.integers(1, 9), **SIZES)
def test_the_ranks_together_see_every_frame(world, length, seed, epoch):
    ranks = [order(length, seed, epoch, rank=rank, world=world) for rank in range(world)]
    assert {len(rows) for rows in ranks} == {len(ResumableSampler(range(length), seed=seed, world=world))}
    dealt = [row for step in zip(*ranks, strict=True) for row in step]
    alone = order(length, seed, epoch)
    assert sorted(alone) == list(range(length))
    # The same order whatever the number of ranks, filled up with its own beginning.
    assert dealt == (alone * (world + 1))[: len(dealt)]
    assert 0 <= len(dealt) - length < world


@given(world=st.integers(1, 5), start=st.integers(0, 70), **SIZES)
def test_a_later_start_leaves_out_exactly_what_was_seen(world, start, length, seed, epoch):
    for rank in range(world):
        whole = order(length, seed, epoch, rank=rank, world=world)
        assert order(length, seed, epoch, rank=rank, world=world, start=start) == whole[start:]


def test_epochs_and_seeds_differ():
    orders = {tuple(order(40, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
