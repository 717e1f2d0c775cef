"""Detections of a frame as the boxes of an official nuScenes submission.

Source: the attribute rule, the range filter and the order of the two transforms are those of mmdet3d's
NuScenesDataset (`_format_bbox`, `lidar_nusc_box_to_global`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nuscenes.eval.common.config import config_factory

from camera3d.detectors.protocol import Detections
from camera3d.evaluation.errors import ResultsInvalid
from camera3d.geometry import Float64, multiply_quaternions, normalise_quaternion, quaternion_to_matrix

EVAL_CONFIG = config_factory("detection_cvpr_2019")
MOVING_SPEED = 0.2  # m/s; a faster object moves

# By class: the attribute of a moving and of a standing object.
ATTRIBUTES: Mapping[str, tuple[str, str]] = {
    "car": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "barrier": ("", ""),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
    "traffic_cone": ("", ""),
}


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A rigid pose: unit quaternion (4,), w first, and translation (3,) in metres."""

    rotation: Float64
    translation: Float64

    @classmethod
    def of_record(cls, record: Mapping) -> Pose:
        """From a record of calibrated_sensor.json or ego_pose.json."""
        return cls(
            rotation=normalise_quaternion(record["rotation"]),
            translation=np.asarray(record["translation"], dtype=np.float64),
        )


def attribute_of(class_name: str, velocity: Sequence[float]) -> str:
    """The attribute that the official code gives a detection of that class and velocity in m/s."""
    moving, standing = ATTRIBUTES[class_name]
    return moving if np.hypot(*velocity[:2]) > MOVING_SPEED else standing


def submission_boxes(
    sample_token: str,
    detections: Detections,
    class_names: Sequence[str],
    *,
    lidar_to_ego: Pose,
    ego_to_global: Pose,
) -> list[dict]:
    """The boxes of one sample in the global frame, best first.

    Boxes farther from the ego vehicle than the class is evaluated at are left out, and of those that remain
    all but the 500 with the best scores.

    Args:
        detections: in the LiDAR frame; tensors on any device.
        class_names: what the labels stand for.

    Raises:
        ResultsInvalid: a class is not one of nuScenes' ten, a number is not finite, or a size not positive.
    """
    check_class_names(class_names)
    boxes = detections.boxes.detach().cpu().double().numpy()
    scores = detections.scores.detach().cpu().double().numpy()
    labels = detections.labels.detach().cpu().numpy()
    _check_numbers(sample_token, boxes, scores)

    to_ego, to_global = (quaternion_to_matrix(pose.rotation) for pose in (lidar_to_ego, ego_to_global))
    centre_ego = boxes[:, :3] @ to_ego.T + lidar_to_ego.translation
    range_m = np.array([EVAL_CONFIG.class_range[name] for name in class_names])[labels]
    near = np.flatnonzero(np.hypot(centre_ego[:, 0], centre_ego[:, 1]) <= range_m)
    kept = near[np.argsort(-scores[near], kind="stable")][: EVAL_CONFIG.max_boxes_per_sample]

    centre = centre_ego[kept] @ to_global.T + ego_to_global.translation
    yaw = boxes[kept, 6]
    about_z = np.stack((np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)), axis=-1)
    turn = multiply_quaternions(ego_to_global.rotation, lidar_to_ego.rotation)
    rotation = multiply_quaternions(turn, about_z)
    velocity = np.concatenate((boxes[kept, 7:9], np.zeros((len(kept), 1))), axis=1) @ to_ego.T @ to_global.T
    rows = zip(
        centre.tolist(),
        boxes[kept][:, [4, 3, 5]].tolist(),
        rotation.tolist(),
        velocity[:, :2].tolist(),
        labels[kept].tolist(),
        scores[kept].tolist(),
        strict=True,
    )
    return [
        {
            "sample_token": sample_token,
            "translation": translation,
            "size": size_wlh,
            "rotation": quaternion,
            "velocity": speed,
            "detection_name": class_names[label],
            "detection_score": score,
            "attribute_name": attribute_of(class_names[label], speed),
        }
        for translation, size_wlh, quaternion, speed, label, score in rows
    ]


def check_class_names(class_names: Sequence[str]) -> None:
    """Raise ResultsInvalid when nuScenes does not evaluate one of these classes."""
    unknown = [name for name in class_names if name not in ATTRIBUTES]
    if unknown:
        raise ResultsInvalid(
            f"nuScenes does not evaluate {', '.join(map(repr, unknown))}: its classes are"
            f" {', '.join(ATTRIBUTES)}. Give a detector of these."
        )


def _check_numbers(sample_token: str, boxes: Float64, scores: Float64) -> None:
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    bad = np.flatnonzero(~finite | (boxes[:, 3:6] <= 0).any(axis=1))
    if len(bad):
        box = ", ".join(f"{value:g}" for value in boxes[bad[0]])
        raise ResultsInvalid(
            f"sample {sample_token}: {len(bad)} of {len(boxes)} detections have a number that is not finite"
            f" or a size that is not positive, the first ({box}) with score {scores[bad[0]]:g}."
            " The weights have diverged; take an earlier checkpoint."
        )
