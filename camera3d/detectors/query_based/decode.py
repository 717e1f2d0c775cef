"""From query predictions to boxes: the rule of the official NMS-free coder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from camera3d.boxes import decode_official
from camera3d.detectors.protocol import Detections
from camera3d.ops.constants import constant

MAX_DETECTIONS = 300


def decode_queries(
    logits: Tensor,
    boxes: Tensor,
    *,
    center_range: Sequence[float],
    max_detections: int = MAX_DETECTIONS,
) -> Detections:
    """The best of queries × classes: a query may be reported under several classes.

    Args:
        logits: (Q, classes), before the sigmoid; Q may be 0.
        boxes: (Q, 10) in the official encoding.
        max_detections: how many of queries × classes are looked at.
        center_range: x, y, z from, x, y, z to, in metres: where the gravity centre of a reported box lies.
    """
    low, high = constant(center_range, boxes).view(2, 3)
    scores = logits.sigmoid().flatten()
    scores, flat = scores.topk(min(max_detections, len(scores)))
    boxes = decode_official(boxes[flat // logits.shape[-1]])
    kept = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(-1).nonzero().squeeze(-1)
    labels = flat % logits.shape[-1]
    return Detections(boxes=boxes[kept], scores=scores[kept], labels=labels[kept])
