"""GridMask: when it acts, what it keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from camera3d.layers.grid_mask import GridMask


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)  # noqa: NPY002  the generator that the layer draws from


def test_eval_mode_changes_nothing():
    images = torch.rand(2, 3, 40, 60)
    assert torch.equal(GridMask(prob=1.0).eval()(images), images)


def test_never_with_prob_zero():
    images = torch.rand(2, 3, 40, 60)
    assert torch.equal(GridMask(prob=0.0).train()(images), images)


def test_one_mask_for_all_images_and_channels():
    masked = GridMask(prob=1.0).train()(torch.ones(4, 3, 40, 60))
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masked, masked[:1, :1].expand_as(masked))


@pytest.mark.parametrize("ratio", [0.3, 0.5])
def test_keeps_a_lattice(ratio):
    """Zero is a pixel that lies on no kept row and on no kept column: the mask is an outer 'or'."""
    for _ in range(20):
        kept = GridMask(ratio=ratio).draw_mask(48, 80) > 0
        rows, columns = kept.all(1), kept.all(0)
        assert np.array_equal(kept, rows[:, None] | columns[None])


def test_mean_share_kept():
    """Period uniform, half of each period kept per axis: three quarters of the pixels but for rounding."""
    share = np.mean([GridMask().draw_mask(60, 90).mean() for _ in range(300)])
    assert 0.65 < share < 0.8
