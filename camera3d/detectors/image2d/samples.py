"""Pictures as mmdet's data samples, and its predictions as detections.

Boxes are x1, y1, x2, y2: outside of the adapter in pixels of the picture in its file, inside of mmdet's
losses in pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from camera3d.detectors.protocol import Detections, GroundTruth, Outputs


def data_samples(
    outputs: Outputs, input_hw: tuple[int, int], truths: Sequence[GroundTruth] | None = None
) -> list[DetDataSample]:
    """What mmdet has to know of each picture of a batch.

    Args:
        outputs: with `image_hw` and `valid_hw` (B, 2).
        input_hw: of the padded input.
        truths: in pixels of the pictures; None where nothing is trained.
    """
    samples = []
    sizes = zip(outputs["image_hw"].tolist(), outputs["valid_hw"].tolist(), strict=True)
    for b, (image_hw, valid_hw) in enumerate(sizes):
        scale_wh = tuple(valid / whole for valid, whole in zip(valid_hw[::-1], image_hw[::-1], strict=True))
        sample = DetDataSample(
            metainfo={
                "img_id": b,
                "ori_shape": tuple(image_hw),
                "img_shape": tuple(valid_hw),
                "pad_shape": input_hw,
                "batch_input_shape": input_hw,
                "scale_factor": scale_wh,
                "flip": False,
            }
        )
        if truths is not None:
            boxes = truths[b].boxes
            sample.gt_instances = InstanceData(
                bboxes=(boxes * boxes.new_tensor((*scale_wh, *scale_wh))).float(), labels=truths[b].labels
            )
        samples.append(sample)
    return samples


def detections(found: InstanceData) -> Detections:
    """mmdet's instances of one picture, best first; equal scores keep their order."""
    order = found.scores.argsort(descending=True, stable=True)
    return Detections(
        boxes=found.bboxes[order].float(), scores=found.scores[order].float(), labels=found.labels[order]
    )


def total(loss: Tensor | Sequence[Tensor]) -> Tensor:
    """A loss that mmdet may give level by level."""
    return loss.mean() if isinstance(loss, Tensor) else torch.stack([one.mean() for one in loss]).sum()
