"""Both stages on a pretended accelerator: the CPU's numbers, nothing left on the host, few waits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "pretended_steps.py"
# A wait is an operation at which a GPU's host stands still, or something that it sends. Counted for one step
# of two samples with queues of two frames and all of a family's terms, and for a scene of four frames.
MOST_WAITS = {"bevformer": {"step": 4, "stream": 30}, "detr3d": {"step": 2, "stream": 17}}


@pytest.fixture(scope="module", params=sorted(MOST_WAITS))
def found(request, tmp_path_factory):
    """What the script of a family printed."""
    command = [sys.executable, str(SCRIPT), request.param, str(tmp_path_factory.mktemp("pretended"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return {"family": request.param, **json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("part", ["step", "focal step", "augmented step"])
def test_a_training_step_has_the_numbers_of_the_cpu(found, part):
    step = found[part]
    assert step["places"] == ["pretended"]
    assert len(step["losses"]) >= 10
    assert {name: error for name, error in step["losses"].items() if error > 1e-4} == {}
    assert step["gradients"] < 1e-3


def test_a_streamed_scene_has_the_numbers_of_the_cpu(found):
    assert found["stream"]["frames"] == 4
    assert found["stream"]["outputs"] < 1e-4


def test_what_stays_on_the_host_fails(found):
    assert "Expected all tensors to be on the same device" in found["mixed"]


@pytest.mark.parametrize("part", ["step", "focal step", "augmented step", "stream"])
def test_a_host_seldom_waits(found, part):
    waits = found[part]["waits"]
    assert waits, "nothing was counted"
    most = MOST_WAITS[found["family"]][part.split()[-1]]
    assert sum(waits.values()) <= most, found[part]["sites"]
