"""Parts of the GPU suite that a CPU never comes to: full memory, lines that wait, outputs that differ."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from gpu_stages import Context, parity, steps, waits
from gpu_stages.materials import KINDS, published, shrunken

from camera3d.detectors.builder import load_config

ROOT = Path(__file__).parents[2]
CONTEXT = Context(out=Path("out"), work=Path("work"))


@pytest.mark.parametrize(("fit", "found"), [(4, [(2, True), (4, True), (8, False)]), (1, [(2, False)])])
def test_samples_are_doubled_until_memory_is_full(monkeypatch, fit, found):
    def taken(taught: object, size: int, context: Context) -> dict:
        if size > fit:
            raise torch.cuda.OutOfMemoryError("full")
        return {"samples": size, "ms a step": 1.0}

    monkeypatch.setattr(steps, "trainee", lambda *_: None)
    monkeypatch.setattr(steps, "taken", taken)
    rows = steps.more_samples(Materials(), ("a", "exact", None))
    assert [(row["samples"], row["fits"]) for row in rows] == found


class Materials:
    """Of a run on a GPU; nothing is made."""

    context = CONTEXT


def test_another_error_than_full_memory_is_not_hidden(monkeypatch):
    def taken(*_: object) -> dict:
        raise RuntimeError("of another kind")

    monkeypatch.setattr(steps, "trainee", lambda *_: None)
    monkeypatch.setattr(steps, "taken", taken)
    with pytest.raises(RuntimeError, match="of another kind"):
        steps.more_samples(Materials(), ("a", "exact", None))


class Waiting:
    """A training whose step waits twice in one line of ours, and warns of something else."""

    device = torch.device("cpu")

    def batch(self, size: int) -> dict:
        return {}

    def step(self, batch: dict) -> None:
        for _ in range(2):
            warnings.warn_explicit(
                "called a synchronizing CUDA operation", UserWarning, str(ROOT / "train" / "a.py"), 12
            )
        warnings.warn_explicit("something else", UserWarning, "b.py", 1)


@pytest.mark.filterwarnings("ignore")  # of the step before the one that is looked at
def test_lines_that_wait_are_counted(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    assert waits.lines(Waiting()) == [{"line": "train/a.py:12", "waits": 2}]
    assert modes == ["warn", "default"]


@pytest.mark.parametrize(
    ("found", "error"),
    [([2.0, 4.0], 0.0), ([2.0, 5.0], 0.25), ([2.0, math.nan], math.inf), ([2.0], math.inf)],
)
def test_an_output_is_compared_with_its_largest_value(found, error):
    assert parity.relative(torch.tensor(found), torch.tensor([2.0, 4.0])) == error


def test_two_empty_outputs_are_alike():
    assert parity.relative(torch.zeros(0, 3), torch.zeros(0, 3)) == 0.0


PATHS = sorted(path for kind in KINDS for path in (ROOT / "configs" / kind).glob("*.py"))
# The suite's detectors have object queries.
NAMES = [path.stem for path in PATHS if "pts_bbox_head" in load_config(path).model]


@pytest.mark.parametrize("name", NAMES)
def test_every_full_size_config_can_be_shrunken(name):
    config = shrunken(published(name))
    assert max(config.inputs.pad_hw) <= 128
    assert config.model.img_backbone.base_channels == 4
    if "encoder_layers" in config.model.pts_bbox_head:
        assert config.model.pts_bbox_head.encoder_layers == 1
