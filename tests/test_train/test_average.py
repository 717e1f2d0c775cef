"""The moving average of the student: its numbers, and that it is what is scored, exported and resumed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn
from train_cases import FRAMES, SPLIT, weights_of

from camera3d.errors import ConfigInvalid
from train.engine import loops
from train.engine.averaging import KEY, AverageOptions, AverageStudent, kept_detector
from train.engine.export import plain_detector
from train.engine.run import distill


def runner_of(model: nn.Module, hook: AverageStudent, verdict: str | None = "finite") -> SimpleNamespace:
    return SimpleNamespace(model=model, hooks=[hook], optim_wrapper=SimpleNamespace(verdict=verdict))


def expected(history: list[torch.Tensor], decay: float, ramp: float | None) -> torch.Tensor:
    """The published recursion, from the weights after the first step."""
    average = history[0].double()
    for step, weights in enumerate(history[1:], start=2):
        keep = decay if ramp is None else decay * (1 - math.exp(-step / ramp))
        average = keep * average + (1 - keep) * weights.double()
    return average


@pytest.mark.parametrize(("decay", "ramp"), [(0.9, 5), (0.9, None), (0.999, 2000)])
def test_numbers(decay, ramp):
    model, hook = nn.BatchNorm1d(3), AverageStudent(AverageOptions(decay=decay, ramp_steps=ramp))
    runner, history = runner_of(model, hook), {"weight": [], "running_mean": []}
    hook.before_run(runner)
    for _ in range(7):
        for name, seen in history.items():
            getattr(model, name).data.normal_()
            seen.append(getattr(model, name).detach().clone())
        hook.after_train_iter(runner, 0)
    for name, seen in history.items():
        found = getattr(kept_detector(runner), name)
        torch.testing.assert_close(found.double(), expected(seen, decay, ramp), atol=1e-6, rtol=1e-5)
        assert not torch.equal(found, seen[-1])


def test_the_ramp_forgets_the_start():
    """As released, the ramp had no effect: a hundredth of the first weights is left after 4,600 steps."""
    left = {}
    for ramp in (None, 2000):
        model = nn.Linear(1, 1)
        hook = AverageStudent(AverageOptions(ramp_steps=ramp))
        runner = runner_of(model, hook)
        model.weight.data.fill_(1.0)
        hook.before_run(runner)
        hook.after_train_iter(runner, 0)
        model.weight.data.fill_(0.0)
        for _ in range(50):
            hook.after_train_iter(runner, 0)
        left[ramp] = kept_detector(runner).weight.item()
    assert left[None] == pytest.approx(0.999**50, rel=1e-4)
    assert left[2000] < 1e-4


@pytest.mark.parametrize("verdict", [None, "loss", "gradient"])
def test_a_step_that_was_not_taken_does_not_count(verdict):
    model, hook = nn.Linear(1, 1), AverageStudent(AverageOptions())
    runner = runner_of(model, hook, verdict)
    hook.before_run(runner)
    before = kept_detector(runner).weight.clone()
    model.weight.data.fill_(7.0)
    hook.after_train_iter(runner, 0)
    assert torch.equal(kept_detector(runner).weight, before)
    assert hook.average.steps == 0


def test_without_an_average_the_student_is_kept():
    model = nn.Linear(1, 1)
    assert kept_detector(SimpleNamespace(model=model, hooks=[])) is model


def test_a_checkpoint_without_an_average_is_not_gone_on_with():
    hook = AverageStudent(AverageOptions())
    with pytest.raises(ConfigInvalid, match=r"holds no average.*--cfg-options ema=None"):
        hook.after_load_checkpoint(None, {"state_dict": {}})


@pytest.mark.usefixtures("one_thread")
def test_what_is_scored_and_exported(workshop, tmp_path):
    config = workshop.student_config(
        "averaged", ema={"decay": 0.9, "ramp_steps": 3}, distiller={"terms": {"bev_heatmap": {}}}
    )
    history, scored = [], []
    real = AverageStudent.after_train_iter

    def recording(hook, runner, *args, **options):
        history.append({k: v.clone() for k, v in plain_detector(runner.model).state_dict().items()})
        real(hook, runner, *args, **options)

    def score(detector, *args, **options):
        scored.append({k: v.clone() for k, v in detector.state_dict().items()})
        return SimpleNamespace(summary={"NDS": 0.5, "mAP": 0.5})

    with (
        mock.patch.object(AverageStudent, "after_train_iter", recording),
        mock.patch.object(loops, "evaluate_detector", score),
    ):
        distill(workshop.options(config, tmp_path, val_split=SPLIT))
    assert len(history) == 2 * FRAMES
    last, best = weights_of(tmp_path / "last.pth"), weights_of(tmp_path / "best.pth")
    changed = 0
    for name, values in last.items():
        assert torch.equal(values, best[name])
        assert torch.equal(values, scored[0][name])
        if values.is_floating_point():
            wanted = expected([step[name] for step in history], 0.9, 3)
            torch.testing.assert_close(values.double(), wanted, atol=1e-6, rtol=1e-4)
            changed += not torch.equal(values, history[-1][name])
    assert changed > 20
    checkpoint = torch.load(sorted(tmp_path.glob("iter_*.pth"))[-1], weights_only=False)
    assert checkpoint[KEY]["steps"] == 2 * FRAMES
    name = "student.pts_bbox_head.query_embedding.weight"
    assert torch.equal(checkpoint["state_dict"][name], history[-1][name.removeprefix("student.")])
