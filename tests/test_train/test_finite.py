"""No step with a NaN is taken, none is silent, and nothing of it is written."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from train_cases import FRAMES, ROOT, VERSION, weights_of
from train_faults import not_finite

from camera3d.checkpoint import harmless_globals, read_state_dict
from train import distill_from_cache
from train.engine.export import export
from train.engine.finite import FiniteSteps, TrainingNotFinite, read_at_once
from train.engine.run import distill

pytestmark = pytest.mark.usefixtures("one_thread")
FOCAL = {"terms": {"focal": {}, "bev_heatmap": {}}}


@pytest.fixture(scope="module")
def config(workshop):
    """Six steps, a checkpoint at each."""
    return workshop.student_config(
        "finite", distiller=FOCAL, **{"train_cfg.max_epochs": 1, "checkpoint_interval": 1}
    )


@pytest.fixture(scope="module")
def tokens(workshop):
    return {
        record["token"] for record in json.loads((workshop.dataroot / VERSION / "sample.json").read_text())
    }


def written(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*.pth"))


@pytest.mark.parametrize(
    ("gradient_only", "says"),
    [
        (False, ("the loss of step 3", "loss_focal nan")),
        (True, ("the gradient of step 3", "every loss is finite")),
    ],
)
def test_a_step_that_is_not_finite_ends_the_training(
    workshop, config, tokens, tmp_path, capfd, gradient_only, says
):
    arguments = workshop.arguments(config, tmp_path, "--cache", str(workshop.store("exact")))
    with not_finite([3], gradient_only=gradient_only):
        assert distill_from_cache.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("TrainingNotFinite") == 1
    assert "Traceback" not in err
    told = err.split("TrainingNotFinite")[1]
    for words in (*says, "--skip-nonfinite 1", "--resume"):
        assert words in told
    assert sum(token in told for token in tokens) == 1
    # Checkpoint and export of the step before stay.
    assert written(tmp_path) == ["iter_1.pth", "iter_2.pth", "last.pth"]
    assert all(value.isfinite().all() for value in weights_of(tmp_path / "last.pth").values())


def test_a_few_may_be_left_out(workshop, config, tmp_path, capfd):
    with not_finite([3]):
        distill(workshop.options(config, tmp_path, skip_nonfinite=1))
    err = capfd.readouterr().err
    assert "left out, 1 of at most 1" in err
    assert "nan" not in err.replace("loss_focal nan", "").replace("nanmean", "")
    assert written(tmp_path) == [f"iter_{FRAMES - 1}.pth", f"iter_{FRAMES}.pth", "last.pth"]
    with harmless_globals():
        saved = torch.load(tmp_path / f"iter_{FRAMES}.pth", weights_only=True)
    assert saved["message_hub"]["runtime_info"]["steps_skipped"] == 1
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


def test_a_step_that_is_left_out_changes_nothing(workshop, config, tmp_path):
    with not_finite([FRAMES]):
        distill(workshop.options(config, tmp_path, skip_nonfinite=1))
    before, after = (read_state_dict(tmp_path / f"iter_{step}.pth") for step in (FRAMES - 1, FRAMES))
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_one_more_than_allowed_stops(workshop, config, tmp_path):
    with (
        not_finite([2, 4]),
        pytest.raises(TrainingNotFinite, match=r"(?s)step 4.*after 1 that were left out"),
    ):
        distill(workshop.options(config, tmp_path, skip_nonfinite=1))
    # The count goes on where a run does.
    with not_finite([1]), pytest.raises(TrainingNotFinite, match=r"(?s)step 4.*after 1 that were left out"):
        distill(workshop.options(config, tmp_path, skip_nonfinite=1, resume=True))


def test_the_step_is_named_among_accumulated_ones(workshop, tmp_path):
    options = {"train_cfg.max_epochs": 1, "checkpoint_interval": 1, "optim_wrapper.accumulative_counts": 2}
    config = workshop.student_config("gathered", distiller=FOCAL, **options)
    with (
        not_finite([3]),
        pytest.raises(TrainingNotFinite, match=r"(?s)loss of step 4.*step 3: loss_focal") as caught,
    ):
        distill(workshop.options(config, tmp_path))
    assert "step 4: " not in str(caught.value)
    assert written(tmp_path) == ["iter_2.pth", "last.pth"]


def test_without_clipping_gradients_are_looked_at_all_the_same(workshop, tmp_path):
    options = {"train_cfg.max_epochs": 1, "optim_wrapper.clip_grad": None}
    config = workshop.student_config("unclipped", distiller=FOCAL, **options)
    with not_finite([2], gradient_only=True), pytest.raises(TrainingNotFinite, match="gradient of step 2"):
        distill(workshop.options(config, tmp_path))


def test_all_ranks_stop_alike(workshop, config, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = workshop.arguments(config, tmp_path / "two", "--cache", str(workshop.store("exact")))
    finished = subprocess.run(
        [*torchrun, str(ROOT / "tests/train_faults.py"), "1", "2", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert finished.returncode
    assert finished.stderr.count("TrainingNotFinite") == 1, finished.stderr
    assert "step 2, rank 1: loss_focal nan" in finished.stderr
    assert "exitcode  : 2" in finished.stderr
    assert written(tmp_path / "two") == ["iter_1.pth", "last.pth"]


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight[0, 0] = math.inf
    with pytest.raises(TrainingNotFinite, match=r"(?s)last\.pth is not written: 1 of its 2.*  weight"):
        export(layer, tmp_path / "last.pth")
    assert not list(tmp_path.iterdir())


class ScaledWrapper(FiniteSteps, OptimWrapper):
    """As mmengine's AmpOptimWrapper, which wants a GPU."""

    def __init__(self, optimizer, scale: float) -> None:
        super().__init__(optimizer, clip_grad={"max_norm": 1.0})
        self.loss_scaler, self._scale_update_param = torch.amp.GradScaler("cpu", init_scale=scale), None

    def backward(self, loss):
        self.loss_scaler.scale(loss).backward()
        self._inner_count += 1


def test_an_overflow_under_a_scaler_is_normal_until_the_scale_is_1():
    weight = nn.Parameter(torch.ones(()))
    wrapper = ScaledWrapper(torch.optim.SGD([weight], lr=0.1), 4.0)

    def update(*, overflows: bool) -> str:
        hook = weight.register_hook(lambda gradient: gradient * (math.inf if overflows else 1))
        wrapper.update_params(weight * 0.1)
        hook.remove()
        return wrapper.verdict

    assert update(overflows=False) == "finite"
    assert weight.item() == pytest.approx(0.99)
    for scale in (2.0, 1.0):
        assert update(overflows=True) == "finite"
        assert wrapper.loss_scaler.get_scale() == scale
        assert weight.item() == pytest.approx(0.99), "a step that overflows is not taken"
    assert update(overflows=True) == "gradient"
    wrapper.update_params(weight * math.nan)
    assert wrapper.verdict == "loss"
    assert weight.item() == pytest.approx(0.99)


class PlainWrapper(FiniteSteps, OptimWrapper):
    """Single precision, as in a training."""


def test_the_device_is_waited_for_once_before_a_step_and_once_to_log_it(monkeypatch):
    weight, reads = nn.Parameter(torch.ones(())), []
    wrapper = PlainWrapper(torch.optim.SGD([weight], lr=0.1), clip_grad={"max_norm": 1.0})
    losses = {f"loss_{number}": weight * number for number in range(5)}

    def counted(name):
        original = getattr(torch.Tensor, name)
        return lambda *given: (reads.append(name), original(*given))[1]

    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name))
    wrapper.update_params(sum(losses.values()))
    assert reads == ["tolist"]
    read_at_once(losses)
    assert reads == ["tolist", "tolist"]


def test_numbers_are_read_together():
    got = read_at_once({"loss": torch.tensor([1.5]), "loss_half": torch.tensor(0.25).half(), "lr": 0.1})
    assert got == {"loss": 1.5, "loss_half": 0.25, "lr": 0.1}


def test_the_number_to_leave_out_is_checked(workshop, config, tmp_path, capsys):
    arguments = workshop.arguments(config, tmp_path, "--cache", "x", "--skip-nonfinite", "-1")
    assert distill_from_cache.main(arguments) == 2
    assert "--skip-nonfinite -1: expected 0 or more" in capsys.readouterr().err
