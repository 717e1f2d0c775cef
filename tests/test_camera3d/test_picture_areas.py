"""Areas of 2D boxes on the maps of a padded picture."""

from __future__ import annotations

import pytest
import torch

from camera3d.errors import ShapeMismatch
from camera3d.picture_areas import box_areas, valid_cells

# A picture of 40 × 80, doubled to 80 × 160 in an input of 96 × 160.
SIZES = {"image_hw": torch.tensor([40, 80]), "valid_hw": torch.tensor([80, 160])}


def areas(boxes, margin=0.0, strides=(8, 32)):
    hws = [(-(-96 // stride), 160 // stride) for stride in strides]
    return box_areas(
        torch.tensor(boxes).view(-1, 4), map_hws=hws, strides=strides, margin_cells=margin, **SIZES
    )


def rectangle(area):
    (cells,) = area
    rows, columns = cells.nonzero().T
    return (rows.min().item(), rows.max().item(), columns.min().item(), columns.max().item(), len(rows))


def test_cells_whose_centre_is_inside():
    fine, coarse = areas([[8.0, 4.0, 24.0, 16.0]])  # of the input: 16 to 48 across, 8 to 32 down
    assert rectangle(fine) == (1, 3, 2, 5, 12)
    assert rectangle(coarse) == (0, 0, 0, 1, 2)  # centres at 16 and 48 across, both on the edge


def test_margin_and_picture_edge():
    fine, _ = areas([[60.0, 30.0, 80.0, 40.0]], margin=1.0)
    # Pushed out by a cell, and never into the padding below row 9.
    assert rectangle(fine) == (6, 9, 14, 19, 24)


def test_no_boxes():
    assert not any(area.any() for area in areas([]))


def test_union():
    both = areas([[0.0, 0.0, 10.0, 10.0], [50.0, 20.0, 60.0, 30.0]])[0]
    alone = [areas([box])[0] for box in ([0.0, 0.0, 10.0, 10.0], [50.0, 20.0, 60.0, 30.0])]
    assert torch.equal(both, alone[0] | alone[1])


def test_valid_cells():
    assert valid_cells(torch.tensor([80, 160]), (12, 20), 8).sum() == 10 * 20
    assert valid_cells(torch.tensor([81, 8]), (12, 20), 8).sum() == 11 * 1
    assert valid_cells(torch.tensor([1, 1]), (3, 3), 64).sum() == 1


def test_boxes_in_space_are_refused():
    with pytest.raises(ShapeMismatch, match=r"expected \(n, 4\), got \(2, 9\)"):
        box_areas(torch.zeros(2, 9), map_hws=[(3, 3)], strides=[8], **SIZES)
