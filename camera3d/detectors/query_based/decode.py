"""From query predictions to boxes: the rule of the official NMS-free coder, without a detector.

Stored query predictions are decoded by the same lines as those of a forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from camera3d.boxes import decode_official
from camera3d.detectors.protocol import Detections

MAX_DETECTIONS = 300
# Boxes whose centre lies outside are dropped: the range plus ten metres around.
POST_CENTER_RANGE = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)


def decode_queries(
    logits: Tensor,
    boxes: Tensor,
    *,
    max_detections: int = MAX_DETECTIONS,
    center_range: Sequence[float] = POST_CENTER_RANGE,
) -> Detections:
    """The best of queries × classes: a query may be reported under several classes.

    Args:
        logits: (Q, classes), before the sigmoid; Q may be 0.
        boxes: (Q, 10) in the official encoding.
        max_detections: how many of queries × classes are looked at.
        center_range: x, y, z from, x, y, z to, in metres: where the gravity centre of a reported box lies.
    """
    low, high = boxes.new_tensor(center_range).view(2, 3)
    scores = logits.sigmoid().flatten()
    scores, flat = scores.topk(min(max_detections, len(scores)))
    boxes = decode_official(boxes[flat // logits.shape[-1]])
    kept = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(-1)
    labels = flat % logits.shape[-1]
    return Detections(boxes=boxes[kept], scores=scores[kept], labels=labels[kept])
