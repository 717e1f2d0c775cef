"""The demo's picture: annotated and detected boxes land on the same place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pyquaternion import Quaternion

from camera3d.data import CAMERA_NAMES, CLASS_NAMES, Frame
from camera3d.geometry import invert_rigid, quaternion_to_matrix, rigid_transform
from demo.picture import Panel, draw, edges_in_image
from synthetic_nuscenes.rig import CAMERAS, LIDAR

IMAGE_HW = (126, 224)
BOX = (20.0, -10.0, 0.5)  # ego frame: ahead and to the right
SIZE_LWH = (4.0, 2.0, 1.5)
YAW = 0.3


@pytest.fixture
def frame() -> Frame:
    """A turned and shifted vehicle, and a car ahead of it and to the right."""
    lidar2img = []
    for name in CAMERA_NAMES:
        intrinsic = np.eye(4)
        intrinsic[:3, :3] = CAMERAS[name].intrinsic(IMAGE_HW)
        lidar2img.append(intrinsic @ invert_rigid(CAMERAS[name].sensor_to_ego) @ LIDAR.sensor_to_ego)
    to_lidar = invert_rigid(LIDAR.sensor_to_ego)
    centre = to_lidar[:3, :3] @ np.array(BOX) + to_lidar[:3, 3]
    heading = to_lidar[:3, :3] @ np.array([np.cos(YAW), np.sin(YAW), 0.0])
    yaw = np.arctan2(heading[1], heading[0])
    far_away, unseen = (50.0, 0.0, 0.0), (5.0, 5.0, 0.0)
    boxes = [[*xyz, *SIZE_LWH, yaw, 0.0, 0.0] for xyz in (centre, far_away, unseen)]
    return Frame(
        sample_token="sample",
        scene_token="scene",
        scene_name="scene-0001",
        timestamp_us=0,
        image_paths=tuple(f"{name}.png" for name in CAMERA_NAMES),
        image_hw=IMAGE_HW,
        lidar2img=np.stack(lidar2img),
        intrinsics=np.stack([CAMERAS[name].intrinsic(IMAGE_HW) for name in CAMERA_NAMES]),
        camera_to_ego=np.zeros((6, 7)),
        camera_ego_to_global=np.zeros((6, 7)),
        lidar_to_ego=np.zeros(7),
        lidar_path="sweep.pcd.bin",
        ego_translation=np.array([600.0, 1600.0, 0.0]),
        ego_rotation=np.array(Quaternion(axis=(0, 0, 1), angle=2.0).elements),
        can_bus_messages=np.zeros(9),
        can_bus_present=True,
        gt_boxes=np.array(boxes),
        gt_labels=np.zeros(3, dtype=np.int64),
        annotation_tokens=("one", "far", "unseen"),
        num_lidar_pts=np.array([5, 5, 0]),
        valid=np.array([True, True, False]),
    )


def result(frame: Frame, score: float = 0.5, name: str = "car") -> dict:
    """The car as an entry of a results JSON, in the global frame."""
    ego = rigid_transform(frame.ego_rotation, frame.ego_translation)
    length, width, height = SIZE_LWH
    rotation = Quaternion(frame.ego_rotation) * Quaternion(axis=(0, 0, 1), angle=YAW)
    return {
        "translation": list(ego[:3, :3] @ np.array(BOX) + ego[:3, 3]),
        "size": [width, length, height],
        "rotation": list(rotation.elements),
        "detection_name": name,
        "detection_score": score,
    }


def test_only_boxes_in_range_that_a_sensor_sees_are_drawn(frame):
    panel = Panel.of_ground_truth(frame)
    assert panel.corners.shape == (1, 8, 3)
    assert list(panel.classes) == [CLASS_NAMES[0]]


def test_annotated_and_detected_boxes_land_on_the_same_place(frame):
    annotated, found = Panel.of_ground_truth(frame), Panel.of_results("teacher", frame, [result(frame)], 3)
    # The rig's LiDAR is not quite upright: a box of its frame is tilted by that much.
    np.testing.assert_allclose(found.corners, annotated.corners, atol=0.1)


def test_footprints_are_in_metres_of_the_ego_frame(frame):
    (footprint,) = Panel.of_results("teacher", frame, [result(frame)], 3).footprints
    turn = quaternion_to_matrix(Quaternion(axis=(0, 0, 1), angle=YAW).elements)[:2, :2]
    length, width, _ = SIZE_LWH
    walk = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * (length / 2, width / 2)
    np.testing.assert_allclose(footprint, walk @ turn.T + BOX[:2], atol=1e-6)


def test_the_surest_boxes_are_kept(frame):
    found = [result(frame, score, name) for score, name in ((0.2, "bus"), (0.9, "car"), (0.5, "truck"))]
    panel = Panel.of_results("teacher", frame, found, 2)
    assert list(panel.classes) == ["car", "truck"]
    assert panel.title == "teacher: its 2 surest"


def test_no_box_is_an_empty_panel(frame):
    panel = Panel.of_results("teacher", frame, [], 2)
    assert panel.corners.shape == (0, 8, 3)
    assert panel.footprints.shape == (0, 4, 2)


def test_a_box_is_where_the_camera_sees_it(frame):
    (corners,) = Panel.of_ground_truth(frame).corners
    right = np.concatenate(edges_in_image(corners, frame.lidar2img[CAMERA_NAMES.index("CAM_FRONT")]))
    # 19 m ahead of the camera and 10 m to the right, focal length 177 pixels: 95 right of the centre at 114.
    assert right[:, 0].mean() == pytest.approx(114 + 95, abs=8)
    assert edges_in_image(corners, frame.lidar2img[CAMERA_NAMES.index("CAM_BACK")]) == []


def test_the_picture_is_written(frame, tmp_path):
    Image.new("RGB", IMAGE_HW[::-1]).save(tmp_path / "CAM_FRONT.png")
    panels = [Panel.of_results(name, frame, [result(frame)], 1) for name in ("teacher", "student")]
    draw(Panel.of_ground_truth(frame), panels, replace(frame), tmp_path, tmp_path / "demo.png")
    assert Image.open(tmp_path / "demo.png").size[0] > 900
