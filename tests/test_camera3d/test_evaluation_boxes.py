"""Detections of a frame as submission boxes: attributes, frames, range, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation_cases import VERSION, detections_of, label, perfect_detections, write_ten_classes
from mmdet3d.evaluation.metrics.nuscenes_metric import lidar_nusc_box_to_global, output_to_nusc_box
from mmdet3d.structures import LiDARInstance3DBoxes
from nuscenes.eval.common.utils import quaternion_yaw
from pyquaternion import Quaternion

from camera3d.data import CLASS_NAMES, build_index
from camera3d.data.devkit import open_nuscenes
from camera3d.evaluation import attribute_of, submission_boxes
from camera3d.evaluation.errors import ResultsInvalid
from camera3d.evaluation.evaluate import poses_of
from camera3d.evaluation.submission import EVAL_CONFIG, Pose
from camera3d.geometry import rigid_transform

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = write_ten_classes(tmp_path_factory.mktemp("nuscenes"))
    return SimpleNamespace(index=build_index(root, VERSION, "all"), nusc=open_nuscenes(root, VERSION))


STILL = Pose(rotation=np.array([1.0, 0.0, 0.0, 0.0]), translation=np.zeros(3))


def box_at(x: float, y: float = 0.0, velocity=(0.0, 0.0)) -> list[float]:
    return [x, y, 0.5, 4.0, 2.0, 1.5, 0.3, *velocity]


def converted(detections, class_names=CLASS_NAMES, lidar_to_ego=STILL, ego_to_global=STILL) -> list[dict]:
    return submission_boxes(
        "sample", detections, class_names, lidar_to_ego=lidar_to_ego, ego_to_global=ego_to_global
    )


ATTRIBUTE_CASES = [
    # class, attribute above 0.2 m/s, attribute at or below
    ("car", "vehicle.moving", "vehicle.parked"),
    ("truck", "vehicle.moving", "vehicle.parked"),
    ("construction_vehicle", "vehicle.moving", "vehicle.parked"),
    ("trailer", "vehicle.moving", "vehicle.parked"),
    ("bus", "vehicle.moving", "vehicle.stopped"),
    ("motorcycle", "cycle.with_rider", "cycle.without_rider"),
    ("bicycle", "cycle.with_rider", "cycle.without_rider"),
    ("pedestrian", "pedestrian.moving", "pedestrian.standing"),
    ("barrier", "", ""),
    ("traffic_cone", "", ""),
]


@pytest.mark.parametrize(("name", "moving", "standing"), ATTRIBUTE_CASES, ids=lambda value: value or "none")
def test_attribute(name, moving, standing):
    assert attribute_of(name, (0.0, -0.21)) == moving
    assert attribute_of(name, (0.15, 0.15)) == moving
    assert attribute_of(name, (0.2, 0.0)) == standing
    assert attribute_of(name, (0.0, 0.0)) == standing
    found = converted(detections_of([box_at(5, velocity=(0.1, -0.3)), box_at(9)], [label(name)] * 2))
    assert [box["attribute_name"] for box in found] == [moving, standing]


def test_box_of_annotation_comes_back(dataset):
    nusc, seen = dataset.nusc, set()
    for (token, detections), frame in zip(
        perfect_detections(dataset.index), dataset.index.frames(), strict=True
    ):
        found = submission_boxes(token, detections, CLASS_NAMES, **poses_of(nusc, token))
        for box, annotation_token in zip(found, frame.annotation_tokens, strict=True):
            truth = nusc.get("sample_annotation", annotation_token)
            assert box["sample_token"] == truth["sample_token"] == token
            np.testing.assert_allclose(box["translation"], truth["translation"], atol=1e-6)
            np.testing.assert_allclose(box["size"], truth["size"], atol=1e-9)
            # Yaw and a flat velocity in a LiDAR frame that leans by 0.02: its square is lost on the way.
            turn = quaternion_yaw(Quaternion(box["rotation"])) - quaternion_yaw(Quaternion(truth["rotation"]))
            assert abs(np.angle(np.exp(1j * turn))) < 2e-3
            velocity = nusc.box_velocity(annotation_token)[:2]
            np.testing.assert_allclose(box["velocity"], velocity, atol=2e-3 * (1 + np.hypot(*velocity)))
            names = [nusc.get("attribute", key)["name"] for key in truth["attribute_tokens"]]
            assert box["attribute_name"] == "".join(names)
            seen.add(box["detection_name"])
    assert seen == set(CLASS_NAMES)


def test_like_the_official_code(dataset):
    generator = torch.Generator().manual_seed(0)
    n = 200
    boxes = torch.rand(n, 9, generator=generator, dtype=torch.float64)
    boxes[:, :3] = boxes[:, :3] * torch.tensor([120.0, 120.0, 8.0]) - torch.tensor([60.0, 60.0, 4.0])
    boxes[:, 3:6] = boxes[:, 3:6] * 5 + 0.2
    boxes[:, 6] = boxes[:, 6] * 6.2 - 3.1
    boxes[:, 7:] = boxes[:, 7:] * 4 - 2
    boxes = boxes.float()
    scores = torch.linspace(0.9, 0.1, n)
    labels = torch.randint(0, 10, (n,), generator=generator)
    token = dataset.index[1].sample_token
    poses = poses_of(dataset.nusc, token)
    matrices = {name: rigid_transform(pose.rotation, pose.translation) for name, pose in poses.items()}
    info = {
        "lidar_points": {"lidar2ego": matrices["lidar_to_ego"]},
        "ego2global": matrices["ego_to_global"],
    }
    prediction = {
        "bboxes_3d": LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)),
        "scores_3d": scores,
        "labels_3d": labels,
    }
    official, _ = output_to_nusc_box(prediction)
    official = lidar_nusc_box_to_global(info, official, list(CLASS_NAMES), EVAL_CONFIG)
    ours = submission_boxes(
        token, detections_of(boxes.numpy(), labels.numpy(), scores.tolist()), CLASS_NAMES, **poses
    )
    assert 0 < len(ours) == len(official) < n
    for mine, theirs in zip(ours, official, strict=True):
        # The official boxes are float32 until they leave the LiDAR frame, with a bottom centre in between.
        np.testing.assert_allclose(mine["translation"], theirs.center, atol=1e-5)
        np.testing.assert_allclose(mine["size"], theirs.wlh, atol=1e-6)
        assert abs(np.dot(mine["rotation"], theirs.orientation.elements)) > 1 - 1e-9
        np.testing.assert_allclose(mine["velocity"], theirs.velocity[:2], atol=1e-6)
        assert mine["detection_name"] == CLASS_NAMES[theirs.label]
        assert mine["detection_score"] == pytest.approx(float(theirs.score))


def test_range_is_around_the_ego_vehicle():
    ahead = Pose(rotation=STILL.rotation, translation=np.array([2.0, 0.0, 1.8]))
    far_away = Pose(rotation=STILL.rotation, translation=np.array([1000.0, -500.0, 0.0]))
    boxes = [box_at(47.9), box_at(48.1), box_at(27.9), box_at(28.1), box_at(-31.9), box_at(-42.1)]
    names = ["car", "car", "barrier", "barrier", "traffic_cone", "pedestrian"]
    found = converted(detections_of(boxes, [*map(label, names)]), lidar_to_ego=ahead, ego_to_global=far_away)
    assert [(box["translation"][0], box["detection_name"]) for box in found] == [
        (pytest.approx(1049.9), "car"),
        (pytest.approx(1029.9), "barrier"),
        (pytest.approx(970.1), "traffic_cone"),
    ]


def test_the_best_500_are_kept():
    scores = torch.linspace(0.01, 0.99, 620).tolist()
    found = converted(detections_of([box_at(i / 100) for i in range(620)], [0] * 620, scores))
    assert len(found) == 500
    assert [box["detection_score"] for box in found] == pytest.approx(scores[:-501:-1])
    assert found[0]["translation"][0] == pytest.approx(6.19)


def test_no_detections():
    assert converted(detections_of([], [])) == []


BAD_NUMBERS = {"NaN": (0, np.nan), "infinite velocity": (8, np.inf), "no width": (4, 0.0)}


@pytest.mark.parametrize(("column", "value"), BAD_NUMBERS.values(), ids=BAD_NUMBERS)
def test_diverged_detections_are_refused(column, value):
    bad = box_at(3)
    bad[column] = value
    with pytest.raises(ResultsInvalid, match="sample sample: 1 of 2 detections"):
        converted(detections_of([box_at(1), bad], [0, 0]))


def test_unknown_class_is_refused():
    with pytest.raises(ResultsInvalid, match="does not evaluate 'tram'"):
        converted(detections_of([], []), class_names=("car", "tram"))
