"""The view of each camera: its finest feature map, its image, and the teacher's boxes projected into both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_schema.inspection.boxes import FRONT_EDGES, OTHER_EDGES, ScoredBoxes, box_corners, project_edge
from cache_schema.inspection.canvas import draw_lines, outline, plain_axes, score_colours
from cache_schema.inspection.projections import pca_rgb
from cache_schema.inspection.sample import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ahead in the upper row, behind in the lower one, left on the left.
_SEATS = ("FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_LEFT", "BACK", "BACK_RIGHT")
_LABEL_FROM_PX = 28  # a box of less height in the image gets no label


def camera_seats(camera_order: tuple[str, ...]) -> list[int]:
    """Numbers of the cameras in the order of the panels."""
    seats = {f"CAM_{seat}": number for number, seat in enumerate(_SEATS)}
    return sorted(range(len(camera_order)), key=lambda n: seats.get(camera_order[n], len(seats)))


def pv_colours(sample: Sample) -> np.ndarray:
    """Colours (cameras, h, w, 3) of the finest image-view map; all cameras share their meaning."""
    return pca_rgb(sample.arrays[sample.finest_pv])


def draw_pv(ax: Axes, sample: Sample, camera: int, colours: np.ndarray) -> None:
    """A feature map of one camera in the pixels of the network's input, with boxes."""
    height, width = sample.spec.inputs.image_shape[:2]
    stride = next(array.stride for array in sample.spec.arrays if array.name == sample.finest_pv)
    map_height, map_width = colours.shape[1:3]
    extent = (0, map_width * stride, map_height * stride, 0)
    ax.imshow(colours[camera], extent=extent, interpolation="nearest")
    name = sample.spec.inputs.camera_order[camera]
    plain_axes(ax, f"{sample.finest_pv}, {name}", (0, width), (height, 0))
    if sample.boxes is not None and "lidar2img" in sample.arrays:
        classes = sample.spec.outputs.class_names
        draw_boxes(
            ax, sample.boxes, sample.arrays["lidar2img"][camera], (width, height), classes, labels=False
        )


def draw_image(ax: Axes, sample: Sample, camera: int, file: Path) -> None:
    """An image at its own resolution, with boxes."""
    from matplotlib.image import imread

    image = imread(file)
    height, width = image.shape[:2]
    ax.imshow(image)
    plain_axes(ax, sample.spec.inputs.camera_order[camera], (0, width), (height, 0))
    if sample.boxes is not None:
        # The stored projection leads to the network's pixels; it only scaled the image and padded it behind.
        scale = float(sample.spec.inputs.pipeline.get("scale", 1.0))
        lidar2img = np.diag((1 / scale, 1 / scale, 1.0, 1.0)) @ sample.arrays["lidar2img"][camera]
        draw_boxes(ax, sample.boxes, lidar2img, (width, height), sample.spec.outputs.class_names)


def draw_boxes(
    ax: Axes,
    boxes: ScoredBoxes,
    lidar2img: np.ndarray,
    size_wh: tuple[int, int],
    class_names: tuple[str, ...],
    *,
    labels: bool = True,
) -> None:
    """Edges of boxes through a projection (4, 4); the front face is crossed. Sure ones lie on top."""
    corners = box_corners(boxes.boxes)
    colours = score_colours(boxes.scores)
    for row in np.argsort(boxes.scores, kind="stable"):
        edges = [
            project_edge(corners[row, a], corners[row, b], lidar2img) for a, b in (*FRONT_EDGES, *OTHER_EDGES)
        ]
        edges = [edge for edge in edges if edge is not None]
        if not edges:
            continue
        points = np.concatenate(edges)
        low, high = points.min(axis=0), points.max(axis=0)
        if (high < 0).any() or (low > size_wh).any():
            continue
        cross = [project_edge(corners[row, a], corners[row, b], lidar2img) for a, b in ((4, 7), (5, 6))]
        draw_lines(ax, edges, colours[row], 1.0)
        draw_lines(ax, [line for line in cross if line is not None], colours[row], 0.5)
        if labels and high[1] - low[1] >= _LABEL_FROM_PX and 0 <= low[0] < size_wh[0] * 0.95 and low[1] > 0:
            text = f"{class_names[boxes.labels[row]]} {boxes.scores[row]:.2f}"
            ax.text(*low, text, color=colours[row], fontsize=5.5, va="bottom", path_effects=outline())
