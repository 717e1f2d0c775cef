"""The two released terms against the numbers of the official code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from train.losses import (
    ChannelWiseDivergence,
    HeatmapL2,
    ShapeMismatch,
    gaussian_heatmap,
    resize_heatmap,
)

RANGE_M = (-51.2, -51.2, 51.2, 51.2)


@pytest.fixture(scope="module")
def golden():
    return np.load(Path(__file__).parents[1] / "golden" / "distill.npz")


@pytest.fixture(scope="module")
def draws():
    """The maps the reference was computed on, in the order they were drawn."""
    rng = np.random.RandomState(1)
    shapes = [(1, 16, 200, 200)] * 2 + [(6, 8, 29, 50)] * 2
    return [torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]


def test_heatmap(golden):
    heatmap = gaussian_heatmap(torch.from_numpy(golden["gt_boxes"]), xy_range_m=RANGE_M)
    # The reference draws in float64 and rounds once: the same to the last bit or two of float32.
    np.testing.assert_allclose(heatmap, golden["heatmap_128"], atol=1e-7)
    resized = resize_heatmap(torch.from_numpy(golden["heatmap_128"])[None], (200, 200))
    np.testing.assert_array_equal(resized[0], golden["heatmap_200"])


def test_bev_l2(golden, draws):
    heatmap = torch.from_numpy(golden["heatmap_200"])[None]
    loss = HeatmapL2(weight=0.1)(draws[0], draws[1], heatmap)
    assert loss.item() == pytest.approx(float(golden["bev_l2"]), rel=1e-6)  # a float32 sum of 10⁵ numbers


def test_channel_wise_divergence(golden, draws):
    loss = ChannelWiseDivergence(tau=2.0, weight=0.25)(draws[2][None], draws[3][None])
    assert loss.item() == pytest.approx(float(golden["cwd"]), rel=1e-6)


def test_divergence_gradient_is_autograds(draws):
    """The written gradient against autograd on the plain formula."""
    student, teacher = (maps[None, :2].double() for maps in draws[2:])
    written, derived = (student.clone().requires_grad_() for _ in range(2))
    loss = ChannelWiseDivergence(tau=2.0, weight=0.25)(written, teacher)
    plain = -((teacher.flatten(3) / 2).softmax(-1) * (derived.flatten(3) / 2).log_softmax(-1)).sum()
    plain = plain * (0.25 * 2**2 / (8 * 2))
    torch.testing.assert_close(loss, plain)
    (3 * loss).backward()
    (3 * plain).backward()
    torch.testing.assert_close(written.grad, derived.grad)


def test_divergence_keeps_no_float32_copies(draws):
    """Between forward and backward autograd holds the two maps and nothing else."""
    student, teacher = draws[2][None].half().requires_grad_(), draws[3][None].half()
    kept_bytes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept_bytes.append(t.untyped_storage().nbytes()) or t, lambda t: t
    ):
        ChannelWiseDivergence()(student, teacher)
    assert sum(kept_bytes) == 2 * student.untyped_storage().nbytes()


@pytest.mark.parametrize(
    ("box", "peak_cell"),
    [
        ([0.4, -0.4, 0, 4, 2], (63, 64)),  # cells are 0.8 m, and row 64 starts at y = 0
        ([-51.19, 51.19, 0, 0.5, 0.5], (127, 0)),  # on the corner: the bump is cut, its peak is not
    ],
)
def test_bump(box, peak_cell):
    heatmap = gaussian_heatmap(torch.tensor([box]), xy_range_m=RANGE_M)
    assert heatmap[peak_cell] == 1
    assert (heatmap == 1).sum() == 1


@pytest.mark.parametrize(
    "boxes",
    [[], [[51.2, 0, 0, 4, 2]], [[-51.3, 0, 0, 4, 2]], [[0, 0, 0, 0, 2]]],
    ids=["none", "beyond the far edge", "before the near edge", "no extent"],
)
def test_no_bump(boxes):
    heatmap = gaussian_heatmap(torch.tensor(boxes).view(-1, 5), xy_range_m=RANGE_M)
    assert heatmap.shape == (128, 128)
    assert not heatmap.any()


def test_wrong_boxes_are_refused():
    with pytest.raises(ShapeMismatch, match=r"\(n, 5 or more\), got \(3, 2\)"):
        gaussian_heatmap(torch.zeros(3, 2), xy_range_m=RANGE_M)
