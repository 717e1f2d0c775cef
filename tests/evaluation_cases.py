"""A dataroot with all ten classes, velocities and fitting attributes; and detections made of ground truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nuscenes_tables import token, turn, write_nuscenes
from torch import Tensor, nn

from camera3d.boxes import encode_official
from camera3d.data import ImagePipeline, NuScenesIndex
from camera3d.data.names import CLASS_NAMES
from camera3d.detectors.protocol import BEV_MAP, QUERY, Detections, Outputs, OutputSpec
from camera3d.detectors.query_based.detector import QueryDetector

VERSION = "v1.0-mini"
IMAGE_HW = (64, 96)
SCENES = {"scene-0103": 3, "scene-0916": 2, "scene-0061": 2}  # the first two are mini_val
SPLITS = {"all": list(SCENES), "one": ["scene-0061"]}

PIPELINE = ImagePipeline(scale=0.5, pad_hw=(45, 80), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), to_rgb=False)

# Category of the tables, size as w, l, h, velocity in m/s over the ground, and the attribute that fits it.
OBJECTS = (
    ("vehicle.car", (1.9, 4.5, 1.6), (3.0, 0.5), "vehicle.moving"),
    ("vehicle.car", (1.8, 4.1, 1.5), (0.0, 0.0), "vehicle.parked"),
    ("vehicle.truck", (2.5, 7.0, 3.0), (-2.0, 1.0), "vehicle.moving"),
    ("vehicle.construction", (2.7, 6.0, 3.1), (0.0, 0.0), "vehicle.parked"),
    ("vehicle.bus.rigid", (2.8, 11.0, 3.2), (0.0, 0.0), "vehicle.stopped"),
    ("vehicle.trailer", (2.9, 12.0, 3.8), (1.0, -4.0), "vehicle.moving"),
    ("movable_object.barrier", (2.5, 0.5, 1.0), (0.0, 0.0), ""),
    ("vehicle.motorcycle", (0.8, 2.1, 1.4), (5.0, 0.0), "cycle.with_rider"),
    ("vehicle.bicycle", (0.6, 1.7, 1.3), (0.0, 0.0), "cycle.without_rider"),
    ("human.pedestrian.adult", (0.7, 0.7, 1.8), (0.0, 1.2), "pedestrian.moving"),
    ("human.pedestrian.child", (0.5, 0.5, 1.3), (0.0, 0.0), "pedestrian.standing"),
    ("movable_object.trafficcone", (0.4, 0.4, 0.9), (0.0, 0.0), ""),
)


def write_ten_classes(root: Path, splits: dict[str, Sequence[str]] | None = None) -> Path:
    """A dataroot of SCENES, every keyframe with all OBJECTS within the range of their class."""
    # The vehicle is where it was a hundred seconds ago: no two scenes may see the same.
    starts_s = {name: 103.0 * number for number, name in enumerate(SCENES)}
    write_nuscenes(
        root,
        version=VERSION,
        scenes=SCENES,
        starts_s=starts_s,
        image_hw=IMAGE_HW,
        tracks=0,
        splits=splits or SPLITS,
    )
    tables = root / VERSION
    samples = json.loads((tables / "sample.json").read_text())
    data = json.loads((tables / "sample_data.json").read_text())
    poses = {pose["token"]: pose for pose in json.loads((tables / "ego_pose.json").read_text())}
    ego_of = {
        record["sample_token"]: poses[record["ego_pose_token"]]["translation"]
        for record in data
        if "LIDAR_TOP" in record["filename"]
    }
    names = sorted({name for name, *_ in OBJECTS})
    attributes = sorted({attribute for *_, attribute in OBJECTS if attribute})
    annotations, instances = [], []
    for scene in SCENES:
        chain = [sample for sample in samples if sample["scene_token"] == token("scene", scene)]
        start = ego_of[chain[0]["token"]]
        for number, (category, size, velocity, attribute) in enumerate(OBJECTS):
            tokens = [token("annotation", scene, number, i) for i in range(len(chain))]
            bearing = 2 * np.pi * number / len(OBJECTS)
            for i, sample in enumerate(chain):
                seconds = (sample["timestamp"] - chain[0]["timestamp"]) / 1e6
                annotations.append(
                    {
                        "token": tokens[i],
                        "sample_token": sample["token"],
                        "instance_token": token("instance", scene, number),
                        "visibility_token": "4",
                        "attribute_tokens": [token("attribute", attribute)] if attribute else [],
                        "translation": [
                            start[0] + 15 * float(np.cos(bearing)) + velocity[0] * seconds,
                            start[1] + 15 * float(np.sin(bearing)) + velocity[1] * seconds,
                            start[2] + size[2] / 2,
                        ],
                        "size": list(size),
                        "rotation": turn(0.7 * number - 3.0),
                        "prev": tokens[i - 1] if i else "",
                        "next": tokens[i + 1] if i + 1 < len(tokens) else "",
                        "num_lidar_pts": 7,
                        "num_radar_pts": 0,
                    }
                )
            instances.append(
                {
                    "token": token("instance", scene, number),
                    "category_token": token("category", category),
                    "nbr_annotations": len(tokens),
                    "first_annotation_token": tokens[0],
                    "last_annotation_token": tokens[-1],
                }
            )
    written = {
        "category": [{"token": token("category", n), "name": n, "description": ""} for n in names],
        "attribute": [{"token": token("attribute", n), "name": n, "description": ""} for n in attributes],
        "sample_annotation": annotations,
        "instance": instances,
    }
    for table, records in written.items():
        (tables / f"{table}.json").write_text(json.dumps(records))
    return root


def detections_of(
    boxes: Sequence, labels: Sequence[int], scores: Sequence[float] | None = None
) -> Detections:
    """Detections of these rows; sure of everything when no scores are given."""
    return Detections(
        boxes=torch.as_tensor(np.array(boxes, dtype=np.float64).reshape(-1, 9)),
        scores=torch.ones(len(labels)) if scores is None else torch.tensor(scores),
        labels=torch.as_tensor(np.array(labels, dtype=np.int64)),
    )


def perfect_detections(index: NuScenesIndex) -> list[tuple[str, Detections]]:
    """Every annotation of the index as a detection."""
    return [
        (frame.sample_token, detections_of(np.nan_to_num(frame.gt_boxes), frame.gt_labels))
        for frame in index.frames()
    ]


def label(class_name: str) -> int:
    return CLASS_NAMES.index(class_name)


def true_queries(boxes: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Logits (n, 10) and encoded boxes (n, 10) of queries that are sure of these annotations."""
    logits = torch.full((len(labels), len(CLASS_NAMES)), -9.0)
    logits[torch.arange(len(labels)), torch.tensor(labels)] = 9.0
    return logits, encode_official(torch.as_tensor(np.nan_to_num(boxes))).float()


class SeesTheTruth(nn.Module):
    """A detector that knows the annotations, and counts in its BEV map how many frames it was handed.

    Attributes:
        seen: sample token, frames of the scene so far, and whether it was training, for every frame.
    """

    class_names = CLASS_NAMES
    inputs = ("images", "lidar2img")
    numerics_version = 1
    max_detections = 300
    post_center_range = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)

    def __init__(self, index: NuScenesIndex):
        super().__init__()
        self.trainable, self.frozen = nn.BatchNorm1d(1), nn.BatchNorm1d(1).eval()
        self.seen: list[tuple[str, int, bool]] = []
        # Only its geometry tells a frame from another.
        self._frames = {PIPELINE.scale_lidar2img(f.lidar2img).tobytes(): f for f in index.frames()}
        assert len(self._frames) == len(index)

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        assert image_hw == (45, 80)
        layer, query = ("layer", "query"), (1, len(OBJECTS))
        return (
            OutputSpec(
                name="bev_feats",
                role=BEV_MAP,
                shape=(1, 1, 1),
                dimension_names=("channel", "bev_y", "bev_x"),
                extent_m=(-50.0, -50.0, -5.0, 50.0, 50.0, 3.0),
                frame="lidar",
            ),
            OutputSpec(
                name="query_logits",
                role=QUERY,
                shape=(*query, len(CLASS_NAMES)),
                dimension_names=(*layer, "class"),
            ),
            OutputSpec(
                name="query_boxes", role=QUERY, shape=(*query, 10), dimension_names=(*layer, "box_code")
            ),
        )

    def encode(self, frame, state=None) -> tuple[Outputs, Tensor]:
        assert set(frame) == {"images", "lidar2img"}
        assert frame["images"].shape == (1, 6, 3, 45, 80)
        known = self._frames[frame["lidar2img"][0].numpy().tobytes()]
        bev = frame["images"].new_ones(1, 1, 1, 1) + (0 if state is None else state)
        modes = [module.training for module in self.modules()]
        self.seen.append((known.sample_token, int(bev.item()), any(modes)))
        logits, boxes = true_queries(known.gt_boxes, known.gt_labels)
        outputs = {
            "bev_feats": bev,
            "query_logits": logits[None, None],
            "query_boxes": boxes[None, None],
        }
        return outputs, bev

    def decode(self, outputs: Outputs) -> list[Detections]:
        assert not torch.is_autocast_enabled("cpu")
        return QueryDetector.decode(self, outputs)
