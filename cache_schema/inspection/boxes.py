"""The teacher's boxes out of a store, in numpy: decoding, corners, projection into the images.

The convention is the one that the spec's `box_convention` states, and camera3d.boxes converts with torch:
cx, cy, log w, log l, cz, log h, sin, cos of the legacy yaw (-yaw - π/2), vx, vy; LiDAR frame, metres.
Here a box is (x, y, z of its centre, l, w, h, right-handed yaw), yaw 0 along +x.
"""

from dataclasses import dataclass

import numpy as np

# Corner numbers of `box_corners` that the edges of a box join: front face, back face, and the four between.
FRONT_EDGES = ((4, 5), (5, 7), (7, 6), (6, 4))
OTHER_EDGES = ((0, 1), (1, 3), (3, 2), (2, 0), (0, 4), (1, 5), (2, 6), (3, 7))
NEAR_M = 0.1  # closer to the camera's plane than this, nothing is drawn


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes (n, 7), scores (n,) in [0, 1] and labels (n,), best first; `threshold` is what they passed.

    When no box reached it, `threshold` is None and the boxes are simply the best there were.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    threshold: float | None


def decode_boxes(encoded: np.ndarray) -> np.ndarray:
    """Encoded boxes (n, 10) to (n, 7) float64."""
    x, y, log_w, log_l, z, log_h, sin, cos = np.asarray(encoded, np.float64)[:, :8].T
    yaw = -np.arctan2(sin, cos) - np.pi / 2
    yaw = (yaw + np.pi) % (2 * np.pi) - np.pi
    # A random teacher may say exp(50) metres: cut off, so that a picture of it can still be drawn.
    length, width, height = np.exp(np.clip((log_l, log_w, log_h), -10, 5))
    return np.stack((x, y, z, length, width, height, yaw), axis=1)


def best_boxes(
    query_boxes: np.ndarray,
    query_logits: np.ndarray,
    *,
    threshold: float,
    at_most: int = 200,
    else_best: int = 20,
) -> ScoredBoxes:
    """The last layer's boxes whose best class scores at least `threshold`.

    Args:
        query_boxes: (layers, queries, 10), encoded.
        query_logits: (layers, queries, classes), before the sigmoid.
        else_best: how many to give when none scores that much.
    """
    logits = np.asarray(query_logits[-1], np.float64)
    scores = 1 / (1 + np.exp(-np.clip(logits.max(axis=1), -60, 60)))
    order = np.argsort(-scores, kind="stable")
    n_passed = int((scores >= threshold).sum())
    chosen = order[: min(n_passed, at_most)] if n_passed else order[:else_best]
    return ScoredBoxes(
        boxes=decode_boxes(query_boxes[-1][chosen]),
        scores=scores[chosen],
        labels=logits[chosen].argmax(axis=1),
        threshold=threshold if n_passed else None,
    )


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners (n, 8, 3) in metres of boxes (n, 7); bit 2 of a corner's number is front, 1 left, 0 top."""
    bits = (np.arange(8)[:, None] >> np.array([2, 1, 0])) & 1
    local = (bits - 0.5) * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return boxes[:, None, :3] + np.stack((x, y, local[..., 2]), axis=-1)


def project_edge(start: np.ndarray, stop: np.ndarray, lidar2img: np.ndarray) -> np.ndarray | None:
    """Pixels (2, 2) of the visible part of a segment given in metres; None when it is behind the camera."""
    ends = np.stack((np.append(start, 1.0), np.append(stop, 1.0))) @ lidar2img.T
    depth = ends[:, 2]
    if (depth < NEAR_M).all():
        return None
    behind = depth < NEAR_M
    if behind.any():
        # Cut the segment at the near plane; beyond it a projection would come out mirrored.
        share = (NEAR_M - depth[0]) / (depth[1] - depth[0])
        ends[behind] = ends[0] + share * (ends[1] - ends[0])
    return ends[:, :2] / ends[:, 2:3]
