"""A real keyframe, where one is at hand: its boxes and projections, by eye once and by number here.

Set FOCALCACHE_NUSCENES_KEYFRAME to a nuScenes dataroot whose v1.0-mini holds one keyframe of scene-0061.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from projection_cases import box_corners, project_points

from camera3d.data import build_index, check_images, relative_can_bus

DATAROOT = os.environ.get("FOCALCACHE_NUSCENES_KEYFRAME")
GOLDEN = Path(__file__).parents[1] / "golden" / "losses.npz"

pytestmark = [
    pytest.mark.skipif(not DATAROOT, reason="FOCALCACHE_NUSCENES_KEYFRAME names no dataroot with a keyframe"),
    pytest.mark.filterwarnings("ignore:nuScenes v1"),
]


@pytest.fixture(scope="module")
def frame():
    index = build_index(DATAROOT, "v1.0-mini", "mini_train")
    assert check_images(DATAROOT, index.frames(), progress=False) == 6
    (frame,) = index
    return frame


def test_boxes_of_the_ten_classes(frame):
    assert len(frame.gt_boxes) == 68
    assert frame.image_hw == (900, 1600)
    near = (np.abs(frame.gt_boxes[:, :2]) < 51.2).all(axis=1)
    assert near.sum() == 51


def test_boxes_lie_in_some_picture(frame):
    corners = box_corners(frame.gt_boxes)
    pixels, depth = project_points(corners.reshape(-1, 3), frame.lidar2img)
    inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels[..., 0] < 1600) & (pixels[..., 1] < 900)
    assert inside.reshape(6, -1, 8).any(axis=(0, 2)).all()


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the reference numbers of the official code are not here")
def test_numbers_of_the_official_code(frame):
    golden = np.load(GOLDEN)
    near = (np.abs(frame.gt_boxes[:, :2]) < 51.2).all(axis=1)
    # One keyframe has no neighbours in time, so the velocities cannot be compared.
    np.testing.assert_allclose(frame.gt_boxes[near, :7], golden["gt_boxes"][:, :7], atol=1e-4)
    assert frame.gt_labels[near].tolist() == golden["gt_labels"].tolist()
    shrunk = np.diag([160 / 1600, 96 / 900, 1, 1]) @ frame.lidar2img
    # The reference came by way of float32 somewhere: 1e-5 of a pixel.
    np.testing.assert_allclose(shrunk, golden["f0.lidar2img"], atol=1e-5)
    np.testing.assert_allclose(relative_can_bus(frame, None), golden["f0.can_bus"], atol=1e-7)
