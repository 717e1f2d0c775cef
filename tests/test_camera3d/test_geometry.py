"""Geometry against pyquaternion, the library behind the devkit and the official info files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nuscenes.eval.common.utils import quaternion_yaw
from projection_cases import box_corners, project_points
from pyquaternion import Quaternion

from cache_schema.inspection.boxes import box_corners as drawn_corners
from camera3d import geometry
from camera3d.instance_areas import _corners as area_corners

ROUNDING = {"rtol": 0, "atol": 1e-12}

numbers = st.floats(-10, 10, allow_nan=False)
quaternions = st.tuples(numbers, numbers, numbers, numbers).filter(lambda q: np.linalg.norm(q) > 1e-3)


@settings(max_examples=60, deadline=None)
@given(quaternions, quaternions)
def test_quaternions_agree_with_pyquaternion(left, right):
    a, b = Quaternion(left).normalised, Quaternion(right).normalised
    np.testing.assert_allclose(geometry.quaternion_to_matrix(left), a.rotation_matrix, **ROUNDING)
    product = geometry.multiply_quaternions(a.elements, b.elements)
    np.testing.assert_allclose(product, (a * b).elements, **ROUNDING)
    np.testing.assert_allclose(geometry.conjugate_quaternion(a.elements), a.inverse.elements, **ROUNDING)


@settings(max_examples=60, deadline=None)
@given(quaternions)
def test_yaws_are_the_two_of_the_official_code(quaternion):
    q = Quaternion(quaternion).normalised
    forward = q.rotation_matrix[:, 0]
    if np.hypot(forward[0], forward[1]) > 1e-3:
        assert _angle(geometry.heading_yaw(quaternion) - quaternion_yaw(q)) < 1e-9
    w, x, y, z = q.elements
    if np.hypot(w * z - x * y, 0.5 - y * y - z * z) > 1e-3:
        assert _angle(geometry.box_yaw(quaternion) - q.yaw_pitch_roll[0]) < 1e-9


@settings(max_examples=40, deadline=None)
@given(quaternions, st.tuples(numbers, numbers, numbers))
def test_inverse_undoes_a_rigid_transform(rotation, translation):
    transform = geometry.rigid_transform(rotation, translation)
    np.testing.assert_allclose(transform @ geometry.invert_rigid(transform), np.eye(4), atol=1e-11)


def test_transforms_take_leading_dimensions():
    rng = np.random.default_rng(0)
    rotations, translations = rng.normal(size=(5, 6, 4)), rng.normal(size=(5, 6, 3))
    batch = geometry.invert_rigid(geometry.rigid_transform(rotations, translations))
    assert batch.shape == (5, 6, 4, 4)
    one = geometry.invert_rigid(geometry.rigid_transform(rotations[3, 2], translations[3, 2]))
    np.testing.assert_array_equal(batch[3, 2], one)


def test_a_point_ahead_of_the_camera_lands_on_its_principal_point():
    intrinsic = np.array([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]])
    forward_camera = geometry.rigid_transform([0.5, -0.5, 0.5, -0.5], [1.0, 0, 1.5])
    lidar2img = geometry.lidar_to_image(np.eye(4), np.eye(4), forward_camera, np.eye(4), intrinsic)
    pixels, depth = project_points([[11.0, 0, 1.5], [11.0, -1.0, 1.5], [-5.0, 0, 1.5]], lidar2img)
    np.testing.assert_allclose(pixels[:2], [[80, 45], [90, 45]], atol=1e-9)  # 1 m to the right at 10 m
    np.testing.assert_allclose(depth, [10, 10, -6], atol=1e-9)


def test_a_point_in_the_camera_plane_divides_by_nothing():
    pixels, depth = project_points([[0.0, 0, 0]], np.zeros((4, 4)))
    assert np.isfinite(pixels).all()
    assert depth == 0


def test_box_corners_are_those_of_mmdet3d():
    import torch
    from mmdet3d.structures import LiDARInstance3DBoxes

    boxes = np.array([[1.0, 2, 3, 4, 2, 1, 0.3], [-5.0, 7, 0, 10, 3, 4, -2.5]])
    theirs = LiDARInstance3DBoxes(torch.tensor(boxes), origin=(0.5, 0.5, 0.5)).corners.numpy()
    written_out = box_corners(boxes)
    np.testing.assert_allclose(drawn_corners(boxes), written_out)
    np.testing.assert_allclose(area_corners(torch.tensor(boxes)), written_out)
    for mine, reference in zip(written_out, theirs, strict=True):
        distance = np.linalg.norm(mine[:, None] - reference[None], axis=-1)
        assert sorted(distance.argmin(axis=1)) == list(range(8))
        assert distance.min(axis=1).max() < 1e-5  # theirs are float32


def test_no_boxes_have_no_corners():
    assert drawn_corners(np.zeros((0, 9))).shape == (0, 8, 3)


def _angle(difference: float) -> float:
    return abs((difference + np.pi) % (2 * np.pi) - np.pi)


@pytest.mark.parametrize("degrees", [-179.0, -90.0, 0.0, 45.0, 179.0])
def test_heading_of_a_level_vehicle_is_its_yaw(degrees):
    half = np.deg2rad(degrees) / 2
    quaternion = [np.cos(half), 0, 0, np.sin(half)]
    assert np.rad2deg(geometry.heading_yaw(quaternion)) == pytest.approx(degrees)
    assert np.rad2deg(geometry.box_yaw(quaternion)) == pytest.approx(degrees)
