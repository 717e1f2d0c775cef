"""`deterministic=True` chooses what repeats itself and never ends a training."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from camera3d.fixed_numerics import WORKSPACE
from train.engine import kernels, run
from train.engine.kernels import fast_products, repeatable

NAME, VALUE = WORKSPACE


@pytest.fixture
def clean(monkeypatch):
    """As in a fresh process; whatever is set here ends with the test."""
    monkeypatch.setenv(NAME, "to be put back")
    monkeypatch.delenv(NAME)


def state() -> dict[str, object]:
    return {
        "workspace": os.environ.get(NAME),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warns only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
    }


CHOSEN = {"workspace": VALUE, "deterministic": True, "warns only": True, "cudnn": True}


def test_kernels_are_chosen_and_put_back(clean):
    before = state()
    with repeatable(True):
        assert state() == CHOSEN
        # An operation without a repeatable form says so, and runs.
        with pytest.warns(UserWarning, match="deterministic"):
            F.max_unpool1d(torch.ones(1, 1, 1), torch.zeros(1, 1, 1).long(), 2)
    assert {**state(), "workspace": None} == {**before, "workspace": None}


def test_nothing_is_touched_where_it_is_not_wanted(clean):
    before = state()
    with repeatable(False):
        assert state() == before


def test_a_users_own_workspace_is_kept(monkeypatch):
    monkeypatch.setenv(NAME, ":16:8")
    with repeatable(True):
        assert os.environ[NAME] == ":16:8"


def test_it_is_set_before_a_device_is_asked_for_and_while_training(workshop, clean):
    seen = {}

    def device(name: str | None) -> torch.device:
        seen["device"] = state()
        return torch.device("cpu")

    def train(*args: object, **options: object) -> None:
        seen["training"] = state()

    chosen = workshop.options(workshop.student_config("repeatable", deterministic=True))
    with mock.patch.object(run, "checked_device", device), mock.patch.object(run, "_train", train):
        run.distill(chosen)
    assert seen == {"device": CHOSEN, "training": CHOSEN}
    assert not torch.are_deterministic_algorithms_enabled()


def test_mmcvs_operators_are_named_where_they_would_run(clean, monkeypatch):
    said = []
    monkeypatch.setattr(kernels.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "describe_backends", lambda device: {"an operator": "mmcv"})
    monkeypatch.setattr(kernels, "print_log", lambda text, *_, **__: said.append(text))
    with repeatable(True):
        pass
    assert "FOCALCACHE_OPS=pytorch" in said[0]


def test_the_runner_leaves_torchs_switch_alone(workshop, tmp_path, one_thread, clean):
    seen, original = [], run.build_runner

    def looked(*args: object, **options: object):
        runner = original(*args, **options)
        seen.append(state())
        return runner

    options = {"deterministic": True, "train_cfg.max_epochs": 1}
    chosen = workshop.options(workshop.student_config("whole", **options), tmp_path)
    with mock.patch.object(run, "build_runner", looked):
        run.train_detector(chosen)
    assert seen == [CHOSEN]


@pytest.mark.parametrize(("device", "inside"), [("cuda", "high"), ("cpu", "highest")])
def test_products_round_on_a_gpu_alone_and_only_inside(device, inside):
    with fast_products(torch.device(device)):
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == "highest"
