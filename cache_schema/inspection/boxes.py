"""The teacher's detections of a sample, in numpy: the ones to draw, corners, projection into the images.

Boxes are (n, 9): x, y, z of the gravity centre, l, w, h in metres, right-handed yaw, 0 along +x, then vx, vy;
in the LiDAR frame, as every store keeps them. Those of pictures are (n, 4): x1, y1, x2, y2 in pixels.
"""

from dataclasses import dataclass

import numpy as np

# Corner numbers of `box_corners` that the edges of a box join: front face, back face, and the four between.
FRONT_EDGES = ((4, 5), (5, 7), (7, 6), (6, 4))
OTHER_EDGES = ((0, 1), (1, 3), (3, 2), (2, 0), (0, 4), (1, 5), (2, 6), (3, 7))
FRONT_CROSS = ((4, 7), (5, 6))
LARGEST_M = 200.0
PICTURE_NUMBERS = 4  # of a box on a picture
NEAR_M = 0.1  # closer to the camera's plane than this, nothing is drawn


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes (n, 9) or (n, 4), scores (n,) in [0, 1] and labels (n,), best first.

    `threshold` is what they passed.

    When no box reached it, `threshold` is None and the boxes are simply the best there were.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    threshold: float | None


def best_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    threshold: float,
    at_most: int = 200,
    else_best: int = 20,
) -> ScoredBoxes:
    """The detections that score at least `threshold`, best first, as they are stored.

    Args:
        boxes: (n, 9) or (n, 4), scores: (n,), labels: (n,).
        else_best: how many to give when none scores that much.
    """
    n_passed = int((scores >= threshold).sum())
    chosen = slice(min(n_passed, at_most) if n_passed else else_best)
    return ScoredBoxes(
        boxes=drawable(boxes[chosen]),
        scores=scores[chosen],
        labels=labels[chosen],
        threshold=threshold if n_passed else None,
    )


def drawable(boxes: np.ndarray) -> np.ndarray:
    """Boxes as float64 with sides of at most LARGEST_M: a random teacher may say exp(50) metres."""
    boxes = boxes.astype(np.float64)
    if boxes.shape[1] == PICTURE_NUMBERS:
        return boxes
    boxes[:, 3:6] = boxes[:, 3:6].clip(0, LARGEST_M)
    return boxes


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners (n, 8, 3) in metres; bit 2 of a corner's number is front, 1 left, 0 top."""
    bits = (np.arange(8)[:, None] >> np.array([2, 1, 0])) & 1
    local = (bits - 0.5) * boxes[:, None, 3:6]
    cos, sin = np.cos(boxes[:, 6:7]), np.sin(boxes[:, 6:7])
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return boxes[:, None, :3] + np.stack((x, y, local[..., 2]), axis=-1)


def rectangle(box: np.ndarray) -> list[np.ndarray]:
    """The four edges (2, 2) of a box x1, y1, x2, y2."""
    x1, y1, x2, y2 = box
    corners = np.array(((x1, y1), (x2, y1), (x2, y2), (x1, y2)))
    return [corners[[i, (i + 1) % 4]] for i in range(4)]


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
