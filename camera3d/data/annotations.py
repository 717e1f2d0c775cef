"""Ground-truth boxes of many keyframes at once, from the devkit's tables to columns.

Source: nuscenes_converter.py (_fill_trainval_infos) of Li et al., ECCV 2022, and the devkit's box_velocity.
The devkit's Box and Quaternion objects would take minutes for the 1.17 million annotations of trainval; here
the numbers are gathered first and computed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
from nuscenes.eval.detection.utils import category_to_detection_name

from camera3d.data.split_index import text_column
from camera3d.geometry import (
    Float64,
    box_yaw,
    conjugate_quaternion,
    multiply_quaternions,
    normalise_quaternion,
    quaternion_to_matrix,
)

MAX_TIME_DIFF_S = 1.5  # of the devkit's box_velocity: between neighbouring keyframes; twice that across two


def annotation_columns(
    nusc, samples: Sequence[Mapping], ego: Poses, lidar: Poses, class_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """The annotation columns of the index and `annotation_count`, for keyframes `samples` in order.

    Args:
        ego: ego to global when LIDAR_TOP fired, for each sample; lidar: LIDAR_TOP to ego.
        class_names: what to keep; annotations of other categories are left out.
    """
    label_of = _labels(nusc, class_names)
    records: list[Mapping] = []
    owners: list[int] = []
    for owner, sample in enumerate(samples):
        found = [nusc.get("sample_annotation", token) for token in sample["anns"]]
        kept = [record for record in found if record["category_name"] in label_of]
        records += kept
        owners += [owner] * len(kept)
    owner = np.array(owners, dtype=np.int64)
    boxes = _boxes(records, owner, ego, lidar)
    boxes[:, 7:9] = _velocities(nusc, records, owner, ego, lidar)
    lidar_points = np.fromiter((r["num_lidar_pts"] for r in records), np.int64, len(records))
    radar_points = np.fromiter((r["num_radar_pts"] for r in records), np.int64, len(records))
    return {
        "annotation_count": np.bincount(owner, minlength=len(samples)).astype(np.int64),
        "annotation_token": text_column(record["token"] for record in records),
        "gt_boxes": boxes,
        "gt_labels": np.fromiter((label_of[r["category_name"]] for r in records), np.int64, len(records)),
        "num_lidar_pts": lidar_points,
        "valid": lidar_points + radar_points > 0,
    }


class Poses:
    """Rigid poses of many frames: unit quaternions (n, 4) and translations (n, 3)."""

    def __init__(self, rotation: np.ndarray, translation: np.ndarray):
        self.rotation = normalise_quaternion(np.asarray(rotation, dtype=np.float64).reshape(-1, 4))
        self.translation = np.asarray(translation, dtype=np.float64).reshape(-1, 3)
        self.inverse_matrix = np.swapaxes(quaternion_to_matrix(self.rotation), -1, -2)


def _labels(nusc, class_names: Sequence[str]) -> dict[str, int]:
    label_of = {}
    for record in nusc.category:
        name = category_to_detection_name(record["name"])
        if name in class_names:
            label_of[record["name"]] = class_names.index(name)
    return label_of


def _gather(records: Sequence[Mapping], key: str, width: int) -> Float64:
    flat = np.fromiter(
        chain.from_iterable(record[key] for record in records), np.float64, width * len(records)
    )
    return flat.reshape(-1, width)


def _boxes(records: Sequence[Mapping], owner: np.ndarray, ego: Poses, lidar: Poses) -> Float64:
    """(n, 9): gravity centre, l, w, h, yaw in the LiDAR frame; the velocity is left zero."""
    boxes = np.zeros((len(records), 9))
    centre = _gather(records, "translation", 3) - ego.translation[owner]
    centre = np.einsum("nij,nj->ni", ego.inverse_matrix[owner], centre) - lidar.translation[owner]
    boxes[:, :3] = np.einsum("nij,nj->ni", lidar.inverse_matrix[owner], centre)
    boxes[:, 3:6] = _gather(records, "size", 3)[:, [1, 0, 2]]  # the tables have w, l, h
    to_lidar = multiply_quaternions(conjugate_quaternion(lidar.rotation), conjugate_quaternion(ego.rotation))
    boxes[:, 6] = box_yaw(multiply_quaternions(to_lidar[owner], _gather(records, "rotation", 4)))
    return boxes


def _velocities(nusc, records: Sequence[Mapping], owner: np.ndarray, ego: Poses, lidar: Poses) -> Float64:
    """(n, 2) metres per second along the LiDAR's x and y; NaN where the devkit gives no estimate.

    Central difference over the neighbours of the same instance, one-sided at the ends of its track. As in
    the official info files the vertical part of the global velocity is dropped before it is turned.
    """
    first = [nusc.get("sample_annotation", r["prev"]) if r["prev"] else r for r in records]
    last = [nusc.get("sample_annotation", r["next"]) if r["next"] else r for r in records]
    stamp_us = {sample["token"]: sample["timestamp"] for sample in nusc.sample}

    def seconds(of: Sequence[Mapping]) -> Float64:
        return 1e-6 * np.fromiter((stamp_us[r["sample_token"]] for r in of), np.int64, len(of))

    step_s = seconds(last) - seconds(first)
    step_m = _gather(last, "translation", 3) - _gather(first, "translation", 3)
    neighbours = np.fromiter((bool(r["prev"]) + bool(r["next"]) for r in records), np.int64, len(records))
    known = (neighbours > 0) & (step_s != 0) & (step_s <= MAX_TIME_DIFF_S * neighbours)
    velocity = np.full((len(records), 3), np.nan)
    velocity[known] = step_m[known] / step_s[known, None]
    velocity[:, 2] = 0.0
    turned = np.einsum("nij,nj->ni", ego.inverse_matrix[owner], velocity)
    return np.einsum("nij,nj->ni", lidar.inverse_matrix[owner], turned)[:, :2]
