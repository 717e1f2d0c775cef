"""A held-out frame as a picture: what the student detects there over what is annotated."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cache_schema.inspection.bev_panels import draw_footprints, footprints
from cache_schema.inspection.boxes import ScoredBoxes, best_boxes
from cache_schema.inspection.camera_panels import CAMERAS, pen_points, projected_boxes
from cache_schema.inspection.canvas import INK, PAPER, TRUTH, draw_lines, plain_axes, score_colours
from camera3d.data import CAMERA_NAMES, Frame, NuScenesIndex
from camera3d.detectors.protocol import Detections

REACH_M = 51.2  # as far as nuScenes scores most classes
MIN_SCORE = 0.2
_WIDTH_IN, _DPI = 14.0, 80


def shown_frame(index: NuScenesIndex) -> Frame:
    """The frame with the most annotated boxes of the scene in the middle: the same in every evaluation."""
    scene = index.scene_rows[len(index.scene_rows) // 2]
    counts = index.columns["annotation_count"][scene.first : scene.stop]
    return index[scene.first + int(np.argmax(counts))]


def held_out_picture(frame: Frame, found: Detections, dataroot: str | Path) -> np.ndarray:
    """(H, W, 3) uint8: from above on the left, the six cameras on the right; annotated boxes are dashed.

    Args:
        found: of that frame, in the LiDAR frame, on the CPU.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = best_boxes(
        found.boxes.float().numpy(),
        found.scores.float().numpy(),
        found.labels.numpy(),
        threshold=MIN_SCORE,
    )
    truth = frame.gt_boxes[frame.valid]
    height, width = frame.image_hw
    # The cameras in two rows beside a square.
    figure = Figure(figsize=(_WIDTH_IN, _WIDTH_IN / (1 + 1.5 * width / height)), dpi=_DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(figure)
    above, around = figure.subfigures(1, 2, width_ratios=(1, 1.5 * width / height))
    axes = above.subplots()
    above.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.93)
    plain_axes(axes, _title(frame, boxes, len(truth)), (-REACH_M, REACH_M), (-REACH_M, REACH_M))
    for lines in footprints(truth):
        draw_lines(axes, lines, TRUTH, 0.9, dashed=True)
    draw_footprints(axes, boxes)
    axes.plot(0, 0, marker="^", color=INK)
    panels = around.subplots(2, 3)
    around.subplots_adjust(left=0.01, right=0.99, bottom=0.02, top=0.93, wspace=0.02, hspace=0.12)
    for panel, name in zip(panels.flat, CAMERAS, strict=True):
        _draw_camera(panel, name, frame, boxes, truth, Path(dataroot))
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _title(frame: Frame, boxes: ScoredBoxes, annotated: int) -> str:
    which = f"the best {len(boxes.scores)}" if boxes.threshold is None else f"{len(boxes.scores)} detected"
    return f"{frame.scene_name}: {which}, {annotated} annotated (dashed)"


def _draw_camera(
    axes: object, name: str, frame: Frame, boxes: ScoredBoxes, truth: np.ndarray, dataroot: Path
) -> None:
    from matplotlib.image import imread

    camera = CAMERA_NAMES.index(name)
    height, width = frame.image_hw
    axes.imshow(imread(dataroot / frame.image_paths[camera]))
    plain_axes(axes, name, (0, width), (height, 0))
    pen = pen_points(width)
    for edges, _ in projected_boxes(truth, frame.lidar2img[camera], (width, height)).values():
        draw_lines(axes, edges, TRUTH, pen, dashed=True)
    colours = score_colours(boxes.scores)
    for row, (edges, _) in projected_boxes(boxes.boxes, frame.lidar2img[camera], (width, height)).items():
        draw_lines(axes, edges, colours[row], pen)
