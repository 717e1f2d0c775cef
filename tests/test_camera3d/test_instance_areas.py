"""Instance areas against hand-computed cells, ray casting, shapely, and a real keyframe."""

from __future__ import annotations

import math
import os
import time

import numpy as np
import pytest
import torch
from projection_cases import box_corners, project_points
from shapely.geometry import MultiPoint, Point
from torch import Tensor

from camera3d.errors import ShapeMismatch
from camera3d.instance_areas import bev_area, pv_areas, query_confidence

DATAROOT = os.environ.get("FOCALCACHE_NUSCENES_KEYFRAME")
RANGE_M = (-5.0, -5.0, 5.0, 5.0)  # on 10×10 cells: cell (r, c) has its centre at y = r - 4.5, x = c - 4.5
# A camera at the origin that looks along +x: u = 50 - 90 y / x, v = 50 - 90 z / x.
FORWARD = torch.tensor([[50.0, -90, 0, 0], [50, 0, -90, 0], [1, 0, 0, 0], [0, 0, 0, 1]]).double()


def box(x=0.0, y=0.0, z=0.0, length=2.0, width=2.0, height=2.0, yaw=0.0) -> Tensor:
    return torch.tensor([[x, y, z, length, width, height, yaw, 0.0, 0.0]], dtype=torch.float64)


def bev(boxes: Tensor, margin: float = 0.0) -> Tensor:
    return bev_area(boxes, map_hw=(10, 10), xy_range_m=RANGE_M, margin_m=margin)


def pv(boxes: Tensor, margin: float = 0.0, cameras: Tensor = FORWARD[None]) -> Tensor:
    (area,) = pv_areas(boxes, lidar2img=cameras, map_hws=[(25, 25)], strides=[4], margin_cells=margin)
    return area


def cells(rows: range, columns: range, size: int = 10) -> Tensor:
    area = torch.zeros(size, size, dtype=torch.bool)
    area[rows.start : rows.stop, columns.start : columns.stop] = True
    return area


@pytest.mark.parametrize(
    ("boxes", "margin", "expected"),
    [
        # x in -2…2 holds the centres -1.5 … 1.5, y in -1…1 those at ±0.5.
        (box(length=4, width=2), 0, cells(range(4, 6), range(3, 7))),
        (box(length=4, width=2), 1, cells(range(3, 7), range(2, 8))),
        (box(length=4, width=2, yaw=math.pi / 2), 0, cells(range(3, 7), range(4, 6))),
        (box(length=4, width=2, yaw=-math.pi), 0, cells(range(4, 6), range(3, 7))),
        (box(x=5, y=-5, length=4, width=2), 0, cells(range(0, 1), range(8, 10))),
        (box(x=20), 0, cells(range(0), range(0))),
        # Too small to hold a cell centre: it counts as large as a cell.
        (box(length=0.5, width=0.5), 0, cells(range(4, 6), range(4, 6))),
        (box(x=0.6, y=0.6, length=0.2, width=0.2), 0.1, cells(range(5, 6), range(5, 6))),
        (box()[:0], 1, cells(range(0), range(0))),
        (
            torch.cat((box(x=-3, length=2), box(x=3, length=2))),
            0,
            cells(range(4, 6), range(1, 3)) | cells(range(4, 6), range(7, 9)),
        ),
    ],
    ids=[
        "straight",
        "margin",
        "quarter turn",
        "half turn",
        "corner",
        "outside",
        "small",
        "small, off the corner",
        "none",
        "two",
    ],
)
def test_footprint(boxes, margin, expected):
    assert torch.equal(bev(boxes, margin), expected)


def test_turned_footprint():
    """At 45° a square of 2√2 m is |x| + |y| ≤ 2: the centres (±0.5, ±0.5), (±1.5, ±0.5), (±0.5, ±1.5)."""
    side = 2 * math.sqrt(2) + 1e-6
    expected = cells(range(4, 6), range(3, 7)) | cells(range(3, 7), range(4, 6))
    assert torch.equal(bev(box(length=side, width=side, yaw=math.pi / 4)), expected)
    # And the sense of the turn: a long thin box at +45° lies along x = y.
    diagonal = bev(box(length=8, width=0.2, yaw=math.pi / 4))
    assert torch.equal(diagonal, torch.eye(10, dtype=torch.bool) & cells(range(2, 8), range(2, 8)))


@pytest.mark.parametrize(
    ("boxes", "margin", "expected"),
    [
        # The near face, 9 m away, spans 40…60 pixels, and cell centres lie at 2 + 4 i: cells 10…14.
        (box(x=10), 0, cells(range(10, 15), range(10, 15), 25)),
        (box(x=10), 1, cells(range(9, 16), range(9, 16), 25)),
        # 2.5 m to the left: 15…35 on the near face, 21.4…37.7 on the far one.
        (box(x=10, y=2.5), 0, cells(range(10, 15), range(4, 9), 25)),
        (box(x=-10), 1, cells(range(0), range(0), 25)),  # behind
        (box(x=10, y=30), 1, cells(range(0), range(0), 25)),  # beside
        (box(x=0, length=6), 0, cells(range(25), range(25), 25)),  # around the camera
        (box()[:0], 1, cells(range(0), range(0), 25)),
    ],
    ids=["ahead", "margin", "left", "behind", "beside", "around", "none"],
)
def test_hull(boxes, margin, expected):
    assert torch.equal(pv(boxes, margin)[0], expected)


def test_box_partly_behind_the_camera():
    """A wall from behind to 9 m ahead, 1 m to the left and endless upwards: all pixels left of 40."""
    area = pv(box(x=0, y=2, length=18, width=2, height=400))[0]
    assert torch.equal(area, cells(range(25), range(10), 25))
    # A mirror image of what lies behind would show on the right.
    assert not area[:, 10:].any()


def random_boxes(rng: np.random.Generator, count: int) -> Tensor:
    boxes = np.zeros((count, 9))
    boxes[:, :3] = rng.uniform((-6, -6, -2), (12, 6, 2), (count, 3))
    boxes[:, 3:6] = rng.uniform(0.3, 6, (count, 3))
    boxes[:, 6] = rng.uniform(-math.pi, math.pi, count)
    return torch.from_numpy(boxes)


def ray_hits(one: Tensor, camera: Tensor, near_m: float, cells_a_side: int, stride: float) -> Tensor:
    """Whether the ray through each cell centre meets the box at a depth of near_m or more."""
    centre = (torch.arange(cells_a_side).double() + 0.5) * stride
    v, u = torch.meshgrid(centre, centre, indexing="ij")
    inverse = torch.linalg.inv(camera)
    # The point at depth d is origin + d · direction.
    direction = torch.stack((u, v, torch.ones_like(u)), -1) @ inverse[:3, :3].T
    cos, sin = one[6].cos(), one[6].sin()
    into_box = torch.tensor([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]).double()
    origin, direction = into_box @ (inverse[:3, 3] - one[:3]), direction @ into_box.T
    ends = torch.stack(((-one[3:6] / 2 - origin) / direction, (one[3:6] / 2 - origin) / direction))
    enter, leave = ends.amin(0).amax(-1).clamp(min=near_m), ends.amax(0).amin(-1)
    return enter <= leave


@pytest.mark.parametrize("seed", range(3))
def test_hull_is_what_rays_hit(seed):
    """Boxes ahead, beside, behind and across the near plane, seen by two tilted cameras."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 60)
    cameras = []
    for _ in range(2):
        turn, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
        turn = turn * np.sign(np.diagonal(turn))
        placed = np.eye(4)
        placed[:3, :3], placed[:3, 3] = turn, rng.normal(size=3)
        cameras.append(FORWARD @ torch.from_numpy(placed))
    kinds = set()
    for one in boxes:
        areas = pv(one[None], cameras=torch.stack(cameras))
        for area, camera in zip(areas, cameras, strict=True):
            assert torch.equal(area, ray_hits(one, camera, 0.1, 25, 4.0))
            _, depth = project_points(box_corners(one[None].numpy())[0], camera.numpy())
            kinds.add((bool((depth > 0).any()), bool((depth > 0).all()), bool(area.any())))
    assert {(True, True, True), (True, False, True), (False, False, False)} <= kinds


def test_margin_is_a_minkowski_sum():
    """Against shapely's hull of the corners, each pushed out to the corners of a square."""
    margin, stride = 1.3, 4.0
    for one in random_boxes(np.random.default_rng(5), 40) + torch.tensor([9.0] + [0.0] * 8).double():
        pixels, depth = project_points(box_corners(one[None].numpy())[0], FORWARD.numpy())
        if (depth < 0.1).any():
            continue
        shifts = margin * np.array([(i, j) for i in (-1, 1) for j in (-1, 1)])
        corners = pixels[:, None] / stride - 0.5 + shifts
        hull = MultiPoint(corners.reshape(-1, 2)).convex_hull
        expected = [[hull.covers(Point(x, y)) for x in range(25)] for y in range(25)]
        assert torch.equal(pv(one[None], margin)[0], torch.tensor(expected))


def test_levels_and_cameras_keep_their_order():
    backwards = FORWARD @ torch.diag(torch.tensor([-1.0, -1, 1, 1])).double()
    areas = pv_areas(
        box(x=10), lidar2img=torch.stack((backwards, FORWARD)), map_hws=[(20, 25), (10, 13)], strides=[4, 8]
    )
    assert [tuple(area.shape) for area in areas] == [(2, 20, 25), (2, 10, 13)]
    assert [area.flatten(1).any(1).tolist() for area in areas] == [[False, True]] * 2


def test_confident_queries():
    scores = torch.tensor([[[0.1, 0.6], [0.3, 0.2], [0.05, 0.02], [0.9, 0.1]], [[0.01, 0.02]] * 4])
    confidence = query_confidence(scores.logit(), min_score=0.25, at_most=2)
    torch.testing.assert_close(confidence, torch.tensor([[0.6, 0, 0, 0.9], [0, 0, 0, 0]]))
    confidence = query_confidence(scores.logit(), min_score=0.25, at_most=900)
    torch.testing.assert_close(confidence[0], torch.tensor([0.6, 0.3, 0, 0.9]))


@pytest.mark.parametrize(
    "call",
    [
        lambda: bev(torch.zeros(3, 6)),
        lambda: pv(torch.zeros(7)),
        lambda: pv(box(), cameras=FORWARD),
        lambda: pv_areas(box(), lidar2img=FORWARD[None], map_hws=[(5, 5)], strides=[4, 8]),
    ],
    ids=["short boxes", "one box", "one camera", "levels"],
)
def test_wrong_shapes_are_refused(call):
    with pytest.raises(ShapeMismatch, match=r"expected .* got"):
        call()


@pytest.mark.skipif(not DATAROOT, reason="FOCALCACHE_NUSCENES_KEYFRAME names no dataroot with a keyframe")
@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_real_keyframe():
    """Every box is seen by some camera, its projected centre lies in its area, and 51 boxes are fast."""
    from camera3d.data import build_index

    (frame,) = build_index(DATAROOT, "v1.0-mini", "mini_train")
    boxes, lidar2img = torch.tensor(frame.gt_boxes), torch.tensor(frame.lidar2img)
    levels = {"map_hws": [(116, 200), (58, 100), (29, 50), (15, 25)], "strides": [8, 16, 32, 64]}
    start = time.perf_counter()
    areas = pv_areas(boxes, lidar2img=lidar2img, **levels)
    assert time.perf_counter() - start < 1
    pixels, depth = project_points(boxes[:, :3].numpy(), frame.lidar2img)
    inside = (depth > 0.1) & (pixels >= 0).all(-1) & (pixels < (1600, 900)).all(-1)
    assert inside.any(0).all()
    for area, stride in zip(areas, levels["strides"], strict=True):
        cameras, which = np.nonzero(inside)
        column, row = (pixels[cameras, which] // stride).astype(int).T
        assert area[cameras, row, column].all()
    assert 0.04 < areas[0].float().mean() < 0.12  # 7 % of the finest level, looked at in a picture
