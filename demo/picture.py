"""A sample from above and through its front camera: each detector's boxes over the annotated ones.

Corners are kept in the LiDAR frame. From above everything is drawn in the ego frame, x ahead (up) and y to
the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache_schema.inspection.boxes import FRONT_EDGES, OTHER_EDGES, box_corners, project_edge
from camera3d.data import CAMERA_NAMES, CLASS_NAMES, Frame
from camera3d.geometry import Float64, invert_rigid, rigid_transform
from synthetic_nuscenes.rig import LIDAR

RANGE_M = 38.4  # of configs/demo
CAMERA = "CAM_FRONT"
# The corners of a box's floor in the order of a walk around it.
FLOOR = (0, 2, 6, 4)
FAINT = 0.35


@dataclass(frozen=True)
class Panel:
    """Boxes of one detector: (n, 8, 3) corners in metres, LiDAR frame, and the class of each."""

    title: str
    corners: Float64
    classes: Sequence[str]

    @classmethod
    def of_ground_truth(cls, frame: Frame) -> Panel:
        """The annotated boxes in range that some sensor point hits."""
        seen = frame.valid & (np.abs(frame.gt_boxes[:, :2]).max(-1, initial=0.0) < RANGE_M)
        boxes, labels = frame.gt_boxes[seen], frame.gt_labels[seen]
        return cls("annotated", box_corners(boxes[:, :7]), [frame.class_names[label] for label in labels])

    @classmethod
    def of_results(cls, name: str, frame: Frame, found: Sequence[Mapping], at_most: int) -> Panel:
        """The surest boxes of a results JSON: as many for every detector, however sure it is of itself."""
        sure = sorted(found, key=lambda box: -box["detection_score"])[:at_most]
        to_lidar = invert_rigid(LIDAR.sensor_to_ego) @ invert_rigid(frame.ego_pose)
        corners = [_transformed(_corners_of(box), to_lidar) for box in sure]
        title = f"{name}: its {len(sure)} surest"
        return cls(title, np.reshape(corners, (-1, 8, 3)), [box["detection_name"] for box in sure])

    @property
    def footprints(self) -> Float64:
        """(n, 4, 2) metres, ego frame."""
        return _transformed(self.corners, LIDAR.sensor_to_ego)[:, FLOOR, :2]


def draw(annotated: Panel, found: Sequence[Panel], frame: Frame, dataroot: Path, path: Path) -> None:
    """Write a PNG: what is annotated and found from above, and the last panel's boxes in the front image."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    plt.rcParams.update({"font.size": 13, "axes.titlesize": 15})
    panels = (annotated, *found)
    figure = plt.figure(figsize=(4.3 * len(panels), 10.2), layout="constrained")
    above, front = figure.subfigures(2, 1)
    axes = above.subplots(1, len(panels), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        _draw_from_above(axis, annotated, filled=True)
        _draw_from_above(axis, panel, filled=False)
        axis.plot(0, 0, marker="^", color="black", ms=10)
        axis.set(xlim=(-RANGE_M, RANGE_M), ylim=(-RANGE_M, RANGE_M), aspect="equal", title=panel.title)
    axes[0].set_ylabel("metres ahead")
    for axis, panel in zip(front.subplots(1, 2), (annotated, found[-1]), strict=True):
        axis.set_title(f"{CAMERA}, {panel.title}")
        _draw_in_image(axis, panel, frame, dataroot)
    handles = [Patch(facecolor=colour_of(name), label=name.replace("_", " ")) for name in CLASS_NAMES]
    where = {"loc": "outside lower center", "ncols": len(CLASS_NAMES), "frameon": False}
    figure.legend(handles=handles, title="from above: filled as annotated, outlined as detected", **where)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def colour_of(name: str) -> tuple[float, float, float]:
    """A class's colour."""
    from matplotlib import colormaps

    return colormaps["tab10"].colors[CLASS_NAMES.index(name)]


def _draw_from_above(axis, panel: Panel, *, filled: bool) -> None:
    for footprint, name in zip(panel.footprints, panel.classes, strict=True):
        colour = colour_of(name)
        look = {"color": (*colour, FAINT), "lw": 1.0} if filled else {"ec": colour, "fc": "none", "lw": 1.8}
        # To the left on paper is to the left of the vehicle.
        axis.fill(-footprint[:, 1], footprint[:, 0], **look)


def _draw_in_image(axis, panel: Panel, frame: Frame, dataroot: Path) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.image import imread

    camera = CAMERA_NAMES.index(CAMERA)
    height, width = frame.image_hw
    axis.imshow(imread(dataroot / frame.image_paths[camera]), interpolation="bilinear")
    for corners, name in zip(panel.corners, panel.classes, strict=True):
        edges = edges_in_image(corners, frame.lidar2img[camera])
        axis.add_collection(LineCollection(edges, colors=[colour_of(name)], linewidths=1.6))
    axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])


def edges_in_image(corners: Float64, lidar2img: Float64) -> list[Float64]:
    """Lines (2, 2) in pixels of a box with corners (8, 3); none of what is behind the camera."""
    pairs = (*FRONT_EDGES, *OTHER_EDGES)
    lines = (project_edge(corners[a], corners[b], lidar2img) for a, b in pairs)
    return [line for line in lines if line is not None]


def _corners_of(box: Mapping) -> Float64:
    """(8, 3) metres, global frame, of an entry of a results JSON."""
    width, length, height = box["size"]
    upright = box_corners(np.array([[0.0, 0.0, 0.0, length, width, height, 0.0]]))[0]
    return _transformed(upright, rigid_transform(box["rotation"], box["translation"]))


def _transformed(points: Float64, transform: Float64) -> Float64:
    """(…, 3) taken through a transform (4, 4)."""
    return points @ transform[:3, :3].T + transform[:3, 3]
