"""A sample from above: annotated boxes beside those of each detector.

Everything is drawn in the ego frame, x ahead (up) and y to the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

from camera3d.data import CLASS_NAMES, Frame
from camera3d.data.synthetic.rig import LIDAR

RANGE_M = 38.4  # of configs/demo


@dataclass(frozen=True)
class Panel:
    """Boxes of one detector: (n, 4, 2) corners in metres, ego frame, and the class of each."""

    title: str
    corners: np.ndarray
    classes: Sequence[str]

    @classmethod
    def of_ground_truth(cls, frame: Frame) -> Panel:
        """The annotated boxes in range that some sensor point hits."""
        boxes, labels = frame.gt_boxes[frame.valid], frame.gt_labels[frame.valid]
        seen = np.abs(boxes[:, :2]).max(-1) < RANGE_M
        boxes, labels = boxes[seen], labels[seen]
        # nuScenes' LiDAR looks ahead along its y axis: a quarter turn to the ego frame, and a metre ahead.
        turned = _corners(boxes[:, :2], boxes[:, 3:5], boxes[:, 6]) @ np.array([[0.0, -1.0], [1.0, 0.0]])
        corners = turned + np.array(LIDAR.translation[:2])
        return cls("annotated", corners, [frame.class_names[label] for label in labels])

    @classmethod
    def of_results(cls, name: str, frame: Frame, found: Sequence[Mapping], at_most: int) -> Panel:
        """The surest boxes of a results JSON: as many for every detector, however sure it is of itself."""
        sure = sorted(found, key=lambda box: -box["detection_score"])[:at_most]
        ego = Quaternion(frame.ego_rotation).inverse
        centres = [ego.rotate(np.subtract(box["translation"], frame.ego_translation))[:2] for box in sure]
        yaws = [(ego * Quaternion(box["rotation"])).yaw_pitch_roll[0] for box in sure]
        sizes = [(box["size"][1], box["size"][0]) for box in sure]
        shape = (np.reshape(centres, (-1, 2)), np.reshape(sizes, (-1, 2)), np.reshape(yaws, -1))
        title = f"{name}: the {len(sure)} surest"
        return cls(title, _corners(*shape), [box["detection_name"] for box in sure])


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels side by side as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    colours = dict(zip(CLASS_NAMES, plt.get_cmap("tab10").colors, strict=True))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 4.9), layout="constrained")
    for axis, panel in zip(axes, panels, strict=True):
        for corners, name in zip(panel.corners, panel.classes, strict=True):
            # To the left on paper is to the left of the vehicle.
            axis.fill(-corners[:, 1], corners[:, 0], edgecolor=colours[name], facecolor="none", lw=1.4)
        axis.plot(0, 0, marker="^", color="black", ms=8)
        axis.set(xlim=(-RANGE_M, RANGE_M), ylim=(-RANGE_M, RANGE_M), aspect="equal", title=panel.title)
        axis.set_xlabel("metres")
    handles = [Patch(edgecolor=colours[name], facecolor="none", label=name) for name in CLASS_NAMES]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(CLASS_NAMES), frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _corners(centres: np.ndarray, sizes_lw: np.ndarray, yaws: np.ndarray) -> np.ndarray:
    """(n, 4, 2) of centres (n, 2), lengths and widths (n, 2) and yaws (n,)."""
    signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) / 2
    local = signs[None] * sizes_lw[:, None]
    cos, sin = np.cos(yaws)[:, None], np.sin(yaws)[:, None]
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return np.stack((x, y), axis=-1) + centres[:, None]
