"""One box: areas, heatmap and the decoder's sampling positions must mean the same place on every map."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from train_cases import ROOT

from camera3d.detectors.builder import build_detector
from camera3d.detectors.protocol import BEV_MAP
from camera3d.detectors.query_based.deformable import ObjectDeformableAttention
from train.distillers.areas import AreaOptions, bev_area_on, heatmap
from train.distillers.compared import BevPair
from train.losses import gaussian_heatmap, resize_heatmap

CENTRE = (20.0, -10.0)
BOX = torch.tensor([[*CENTRE, -1.0, 4.0, 1.8, 1.6, 0.3, 0.0, 0.0]])


@dataclass(frozen=True)
class Case:
    """The maps of a pair of configs."""

    id: str
    teacher: str
    student: str

    @property
    def bev(self) -> BevPair:
        """As a distillation compares them."""
        student, teacher = (
            next(
                spec
                for spec in build_detector(ROOT / "configs" / name).output_specs((64, 64))
                if spec.role == BEV_MAP
            )
            for name in (self.student, self.teacher)
        )
        return BevPair(student=student, teacher=teacher)


CASES = [
    Case("demo", "demo/teacher.py", "demo/student.py"),
    Case("full size", "teacher/bevformer_base.py", "student/bevformer_small.py"),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)


def cell_of_centre(bev: BevPair, map_hw: tuple[int, int]) -> tuple[int, int]:
    """Row and column of the box's centre."""
    low_x, low_y, high_x, high_y = bev.xy_range_m
    return (
        int((CENTRE[1] - low_y) / (high_y - low_y) * map_hw[0]),
        int((CENTRE[0] - low_x) / (high_x - low_x) * map_hw[1]),
    )


@every_case
@pytest.mark.parametrize("which", ["teacher", "student"])
def test_the_area_lies_around_the_box(case, which):
    bev = case.bev
    own = getattr(bev, which)
    map_hw = own.shape[-2:]
    area = bev_area_on(BOX, own, bev, AreaOptions())
    assert area[cell_of_centre(bev, map_hw)]
    middle = area.nonzero().double().mean(0)
    torch.testing.assert_close(middle, torch.tensor(cell_of_centre(bev, map_hw)).double(), atol=1, rtol=0)
    # 5 m × 2.8 m with the margin: no more than what these may touch.
    low_x, _, high_x, _ = bev.xy_range_m
    cell_m = (high_x - low_x) / map_hw[1]
    assert area.sum() * cell_m**2 <= (5 + cell_m) * (2.8 + cell_m)


@every_case
def test_the_heatmap_peaks_on_the_box(case):
    bev = case.bev
    drawn = heatmap(BOX, bev)
    assert drawn.max() == 1
    for peak in (drawn == 1).nonzero():
        torch.testing.assert_close(
            peak, torch.tensor(cell_of_centre(bev, bev.teacher.shape[-2:])), atol=1, rtol=0
        )


@every_case
@pytest.mark.parametrize("which", ["teacher", "student"])
def test_the_decoder_samples_on_the_box(case, which):
    """A query whose reference is the box's centre reads the cell of that centre, and no cell further away."""
    bev = case.bev
    height, width = map_hw = getattr(bev, which).shape[-2:]
    low_x, low_y, high_x, high_y = bev.xy_range_m
    reference = torch.tensor(
        [[[(CENTRE[0] - low_x) / (high_x - low_x), (CENTRE[1] - low_y) / (high_y - low_y)]]]
    )
    attention = ObjectDeformableAttention(embed_dims=4, num_heads=1, num_points=1, dropout=0.0)
    attention.init_weights()
    nn.init.zeros_(attention.sampling_offsets.bias)
    query = torch.zeros(1, 1, 4)
    cells = torch.zeros(1, height * width, 4, requires_grad=True)
    *_, read = attention(query, query, cells, reference, map_hw)
    read.sum().backward()
    touched = cells.grad[0].abs().sum(-1).view(map_hw).nonzero()
    wanted = torch.tensor(cell_of_centre(bev, map_hw))
    assert (touched == wanted).all(-1).any()
    assert (touched - wanted).abs().max() <= 1


def test_every_object_keeps_its_peak_on_a_coarse_map():
    """128×128 picked at 32×32 kept one cell in sixteen, and most peaks fell between."""
    rng = torch.Generator().manual_seed(0)
    boxes = torch.zeros(40, 9)
    boxes[:, :2] = torch.rand(40, 2, generator=rng) * 70 - 35
    boxes[:, 3:6] = 0.6
    range_m = (-38.4, -38.4, 38.4, 38.4)
    drawn = gaussian_heatmap(boxes, xy_range_m=range_m)[None]
    pooled = resize_heatmap(drawn, (32, 32))[0]
    cells = ((boxes[:, :2] + 38.4) / 2.4).floor().long()
    assert (pooled[cells[:, 1], cells[:, 0]] == 1).all()
    # A bump reaches two cells of 0.6 m: a cell of 2.4 m and its neighbours at most.
    far = torch.ones(32, 32, dtype=torch.bool)
    for x, y in cells.tolist():
        far[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = False
    assert not pooled[far].any()
