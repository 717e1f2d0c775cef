"""The view of each camera: its finest feature map, its image, and boxes projected into both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cache_schema.inspection.boxes import (
    FRONT_CROSS,
    FRONT_EDGES,
    OTHER_EDGES,
    box_corners,
    project_edge,
    rectangle,
)
from cache_schema.inspection.canvas import TRUTH, draw_lines, outline, plain_axes, score_colours
from cache_schema.inspection.dataset_tables import GroundTruth
from cache_schema.inspection.projections import pca_rgb
from cache_schema.inspection.sample import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Ahead in the upper row, behind in the lower one, left on the left.
_SEATS = ("FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_LEFT", "BACK", "BACK_RIGHT")
CAMERAS = tuple(f"CAM_{seat}" for seat in _SEATS)
_PANEL_POINTS = 370  # width of a panel in the picture
_LABEL_POINTS = 7.0
_LABEL_FROM = 0.08  # a box that takes a smaller share of the image's height gets no label


def camera_seats(camera_order: tuple[str, ...]) -> list[int]:
    """Numbers of the cameras in the order of the panels."""
    seats = {camera: number for number, camera in enumerate(CAMERAS)}
    return sorted(range(len(camera_order)), key=lambda n: seats.get(camera_order[n], len(seats)))


def pv_colours(sample: Sample) -> np.ndarray:
    """Colours (cameras, h, w, 3) of the finest image-view map; all cameras share their meaning."""
    return pca_rgb(sample.arrays[sample.finest_pv])


def draw_pv(ax: Axes, sample: Sample, truth: GroundTruth | None, camera: int, colours: np.ndarray) -> None:
    """A feature map of one camera in the pixels of the network's input, with boxes."""
    height, width = sample.spec.inputs.image_shape[:2]
    stride = next(array.stride for array in sample.spec.arrays if array.name == sample.finest_pv)
    map_height, map_width = colours.shape[1:3]
    extent = (0, map_width * stride, map_height * stride, 0)
    ax.imshow(colours[camera], extent=extent, interpolation="nearest")
    name = sample.spec.inputs.camera_order[camera]
    plain_axes(ax, f"{sample.finest_pv}, {name}", (0, width), (height, 0))
    if sample.on_picture:
        scale_hw = sample.arrays["valid_hw"] / sample.arrays["image_hw"]
        _draw_rectangles(ax, sample, truth, tuple(scale_hw[::-1]), (width, height), labels=False)
    elif "lidar2img" in sample.arrays:
        lidar2img = sample.arrays["lidar2img"][camera]
        _draw_all(ax, sample, truth, lidar2img, (width, height), labels=False)


def draw_image(ax: Axes, sample: Sample, truth: GroundTruth | None, camera: int, file: Path) -> None:
    """An image at its own resolution, with boxes."""
    from matplotlib.image import imread

    image = imread(file)
    height, width = image.shape[:2]
    ax.imshow(image)
    plain_axes(ax, sample.spec.inputs.camera_order[camera], (0, width), (height, 0))
    if sample.on_picture:
        _draw_rectangles(ax, sample, truth, (1.0, 1.0), (width, height), labels=True)
    elif "lidar2img" in sample.arrays:
        # The stored projection leads to the network's pixels; it only scaled the image and padded it behind.
        scale = input_scale(sample)
        lidar2img = np.diag((1 / scale, 1 / scale, 1.0, 1.0)) @ sample.arrays["lidar2img"][camera]
        _draw_all(ax, sample, truth, lidar2img, (width, height), labels=True)


def input_scale(sample: Sample) -> float:
    """Pixels of the network's input to a pixel of the dataset's image."""
    return float(sample.spec.inputs.pipeline.get("scale", 1.0))


def _draw_all(
    ax: Axes,
    sample: Sample,
    truth: GroundTruth | None,
    lidar2img: np.ndarray,
    size_wh: tuple[int, int],
    *,
    labels: bool,
) -> None:
    """The ground truth and the teacher's boxes in space, as a camera sees them."""
    _draw(
        ax,
        sample,
        {} if truth is None else projected_boxes(truth.boxes, lidar2img, size_wh),
        {} if sample.boxes is None else projected_boxes(sample.boxes.boxes, lidar2img, size_wh),
        size_wh,
        labels=labels,
    )


def _draw_rectangles(
    ax: Axes,
    sample: Sample,
    truth: GroundTruth | None,
    scale_wh: tuple[float, float],
    size_wh: tuple[int, int],
    *,
    labels: bool,
) -> None:
    """Likewise, of boxes on a picture that is drawn `scale_wh` times as large."""
    found = [None if one is None else one.boxes * (scale_wh * 2) for one in (truth, sample.boxes)]
    drawn = [
        {} if boxes is None else {row: (rectangle(box), []) for row, box in enumerate(boxes)}
        for boxes in found
    ]
    _draw(ax, sample, *drawn, size_wh, labels=labels)


def _draw(
    ax: Axes,
    sample: Sample,
    truth: Mapping[int, tuple[list[np.ndarray], list[np.ndarray]]],
    drawn: Mapping[int, tuple[list[np.ndarray], list[np.ndarray]]],
    size_wh: tuple[int, int],
    *,
    labels: bool,
) -> None:
    """The ground truth dashed, and over it the teacher's boxes, sure ones on top."""
    for edges, _ in truth.values():
        draw_lines(ax, edges, TRUTH, pen_points(size_wh[0]), dashed=True)
    if sample.boxes is None:
        return
    boxes, colours = sample.boxes, score_colours(sample.boxes.scores)
    for row in sorted(drawn, key=lambda row: boxes.scores[row]):
        edges, cross = drawn[row]
        draw_lines(ax, edges, colours[row], pen_points(size_wh[0]))
        draw_lines(ax, cross, colours[row], 0.5)
    if labels:
        classes = sample.spec.outputs.class_names
        texts = {row: f"{classes[boxes.labels[row]]} {boxes.scores[row]:.2f}" for row in drawn}
        _write_labels(ax, drawn, texts, colours, size_wh)


def pen_points(width_px: int) -> float:
    """Width of a line in points: more than half a pixel of a small image, and never too thin to see."""
    return float(np.clip(0.6 * _PANEL_POINTS / width_px, 0.9, 1.6))


def projected_boxes(
    boxes: np.ndarray, lidar2img: np.ndarray, size_wh: tuple[int, int]
) -> dict[int, tuple[list[np.ndarray], list[np.ndarray]]]:
    """By row of `boxes` (n, ≥ 7), if it is in the image: its edges and the cross on its front, in pixels."""
    found = {}
    for row, corners in enumerate(box_corners(boxes)):
        edges = _projected(corners, (*FRONT_EDGES, *OTHER_EDGES), lidar2img)
        if not edges:
            continue
        points = np.concatenate(edges)
        if (points.max(axis=0) < 0).any() or (points.min(axis=0) > size_wh).any():
            continue
        found[row] = edges, _projected(corners, FRONT_CROSS, lidar2img)
    return found


def _projected(
    corners: np.ndarray, pairs: Sequence[tuple[int, int]], lidar2img: np.ndarray
) -> list[np.ndarray]:
    lines = [project_edge(corners[start], corners[stop], lidar2img) for start, stop in pairs]
    return [line for line in lines if line is not None]


def _write_labels(
    ax: Axes,
    drawn: Mapping[int, tuple[list[np.ndarray], list[np.ndarray]]],
    texts: Mapping[int, str],
    colours: np.ndarray,
    size_wh: tuple[int, int],
) -> None:
    """Label boxes that are high enough, best first, where no better one's label stands."""
    width, height = size_wh
    line_px = _LABEL_POINTS * width / _PANEL_POINTS  # of the image, however many it has
    taken: list[tuple[float, float, float]] = []
    for row in sorted(drawn):
        points = np.concatenate(drawn[row][0])
        low, high = points.min(axis=0), points.max(axis=0)
        x, y, text_px = low[0], low[1], 0.6 * line_px * len(texts[row])
        if high[1] - low[1] < _LABEL_FROM * height or not (0 <= x < width - text_px and y > line_px):
            continue
        if any(x < right and left < x + text_px and abs(y - other) < line_px for left, right, other in taken):
            continue
        taken.append((x, x + text_px, y))
        style = {"color": colours[row], "fontsize": _LABEL_POINTS, "va": "bottom"}
        ax.text(x, y, texts[row], path_effects=outline(), **style)
