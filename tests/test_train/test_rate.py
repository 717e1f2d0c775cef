"""The learning rate goes with the samples a step, unless it is fixed, and the log says which."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config
from train_cases import ROOT

from camera3d.errors import ConfigInvalid
from train.engine.log_lines import rates
from train.engine.rate import StepSize, rate_factor, scaled
from train.engine.run import train_detector

RATE = 2e-4


def config(**scale: object) -> Config:
    given = {"auto_scale_lr": scale} if scale else {}
    return Config({"optim_wrapper": {"optimizer": {"type": "AdamW", "lr": RATE}}, **given})


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (StepSize(1, processes=8), RATE),
        (StepSize(8), RATE),
        (StepSize(2, processes=2, accumulated=2), RATE),
        (StepSize(1), RATE / 8),
        (StepSize(4, processes=8), 4 * RATE),
    ],
    ids=str,
)
def test_the_rate_is_in_proportion_to_the_samples_a_step(step, wanted):
    wrapper, said = scaled(config(enable=True, base_batch_size=8), step)
    assert wrapper["optimizer"]["lr"] == pytest.approx(wanted)
    assert f"learning rate {wanted:g}" in said
    assert f"{step.samples} samples a step" in said


@pytest.mark.parametrize("scale", [{}, {"enable": False, "base_batch_size": 8}])
def test_a_fixed_rate_is_the_configs(scale):
    wrapper, said = scaled(config(**scale), StepSize(3))
    assert wrapper["optimizer"]["lr"] == RATE
    assert "not scaled" in said


def test_what_was_given_is_left_alone():
    given = config(enable=True, base_batch_size=8)
    scaled(given, StepSize(1))
    assert given.optim_wrapper.optimizer.lr == RATE


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ({"enable": True}, "base_batch_size: expected a whole number of samples, 1 or more, got None"),
        ({"enable": True, "base_batch_size": 0}, "1 or more, got 0"),
        ({"enable": "yes"}, "enable: expected True or False, got 'yes'"),
        ({"enabled": True}, "unknown entry enabled"),
    ],
)
def test_what_cannot_be_is_named(scale, says):
    with pytest.raises(ConfigInvalid, match=says):
        scaled(config(**scale), StepSize(1))


def test_a_rate_that_is_missing_cannot_be_scaled():
    without = config(enable=True, base_batch_size=8)
    del without.optim_wrapper.optimizer.lr
    with pytest.raises(ConfigInvalid, match=r"optim_wrapper\.optimizer\.lr"):
        scaled(without, StepSize(1))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("[dst]*/*.py")), ids=lambda path: path.stem)
def test_no_published_or_demo_schedule_changes_at_its_own_batch(path):
    loaded = Config.fromfile(path)
    own = loaded.train_dataloader.batch_size * (1 if path.parent.name == "demo" else 8)
    assert rate_factor(loaded, own) == 1


def test_the_head_of_a_log_has_the_scaled_rate():
    small = Config.fromfile(ROOT / "configs/student/bevformer_small.py")
    assert rates(small, 8).startswith("0.0002 AdamW")
    assert rates(small, 1).startswith("2.5e-05 AdamW")


def test_a_training_takes_and_logs_the_scaled_rate(workshop, tmp_path, one_thread):
    options = {"train_cfg.max_epochs": 1, "auto_scale_lr.enable": True}
    chosen = workshop.options(workshop.student_config("scaled", **options), tmp_path, batch_size=2)
    train_detector(chosen)
    scalars = next(tmp_path.glob("*/vis_data/scalars.json")).read_text().splitlines()
    warm_up = 1 / 3  # of the published schedule's first step
    # mmengine shows the first group's rate, the backbone's.
    shown = json.loads(scalars[0])["base_lr"] if "base_lr" in scalars[0] else json.loads(scalars[0])["lr"]
    assert shown == pytest.approx(RATE * 2 / 8 * warm_up, rel=1e-3)
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert (
        "learning rate 5e-05: the config's 0.0002 is for 8 samples a step, and this run has 2 samples" in log
    )
