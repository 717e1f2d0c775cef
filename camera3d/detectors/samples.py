"""mmdet3d's data samples in and out: ground truth of a batch, detections for its evaluators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from camera3d.boxes import BOXES_2D
from camera3d.detectors.protocol import Detections, GroundTruth


def ground_truth(data_samples: list[Det3DDataSample]) -> list[GroundTruth]:
    """Boxes and labels out of mmdet3d's data samples: gravity-centre boxes, or 2D boxes if there are such."""
    truths = []
    for sample in data_samples:
        if "gt_instances" in sample:
            truths.append(GroundTruth(sample.gt_instances.bboxes, sample.gt_instances.labels))
            continue
        boxes = sample.gt_instances_3d.bboxes_3d
        truths.append(
            GroundTruth(
                torch.cat((boxes.gravity_center, boxes.tensor[:, 3:]), dim=-1),
                sample.gt_instances_3d.labels_3d,
            )
        )
    return truths


def with_detections(
    data_samples: list[Det3DDataSample], detections: Sequence[Detections]
) -> list[Det3DDataSample]:
    """The data samples with `pred_instances_3d`: LiDAR boxes (bottom centre), scores, labels.

    2D boxes become `pred_instances`.
    """
    for sample, found in zip(data_samples, detections, strict=True):
        if found.boxes.shape[-1] == BOXES_2D.numbers:
            sample.pred_instances = InstanceData(bboxes=found.boxes, scores=found.scores, labels=found.labels)
            continue
        boxes = LiDARInstance3DBoxes(found.boxes, box_dim=9, origin=(0.5, 0.5, 0.5))
        sample.pred_instances_3d = InstanceData(
            bboxes_3d=boxes, scores_3d=found.scores, labels_3d=found.labels
        )
    return data_samples
