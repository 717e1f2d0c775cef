"""The bird's-eye view: maps, range rings, the car, and the teacher's boxes with their headings.

x points to the right of the car and y ahead, as in the LiDAR frame; maps run along y and x, both ascending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cache_schema.inspection.boxes import ScoredBoxes, box_corners
from cache_schema.inspection.canvas import FAINT, INK, TRUTH, draw_lines, outline, plain_axes, score_colours
from cache_schema.inspection.dataset_tables import GroundTruth
from cache_schema.inspection.projections import norm_map, pca_rgb, sampling_density
from cache_schema.inspection.sample import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RING_STEP_M = 10
_KEPT_RGB, _LEFT_OUT_RGB = (0.28, 0.48, 0.56), (0.06, 0.07, 0.09)
_EGO_LENGTH_M, _EGO_WIDTH_M = 4.1, 1.7


def bev_panels(sample: Sample) -> list[tuple[str, np.ndarray | None, str | None]]:
    """Title, map (H, W) or (H, W, 3), and colour map of every panel that the sample has something for."""
    panels: list[tuple[str, np.ndarray | None, str | None]] = []
    arrays = sample.arrays
    bev = sample.bev_map
    if bev is not None:
        panels.append((f"{bev}: principal components as colours", pca_rgb(arrays[bev]), None))
        panels.append((f"{bev}: norm over the channels", norm_map(arrays[bev]), "cividis"))
    if bev in sample.masks:
        kept = np.where(sample.masks[bev][..., None], _KEPT_RGB, _LEFT_OUT_RGB)
        panels.append(("focal areas: cells that the store keeps", kept, None))
    elif {"sampling_locations", "attention_weights", "query_logits"} <= set(arrays):
        logits = arrays["query_logits"][-1].astype(np.float64).max(axis=-1)
        density = sampling_density(
            arrays["sampling_locations"],
            arrays["attention_weights"],
            1 / (1 + np.exp(-logits)),
            _bev_hw(sample),
        )
        # A few cells get most of it: the fourth root shows the rest too.
        panels.append(("focal areas: where confident queries look", density**0.25, "magma"))
    if not panels and sample.boxes is not None:
        panels.append(("boxes", None, None))
    return panels


def draw_bev(
    ax: Axes,
    sample: Sample,
    truth: GroundTruth | None,
    title: str,
    values: np.ndarray | None,
    colour_map: str | None,
) -> None:
    """One panel with everything on it."""
    x_from, y_from, _, x_to, y_to, _ = sample.range_m
    if values is not None:
        extent = (x_from, x_to, y_from, y_to)
        ax.imshow(values, origin="lower", extent=extent, cmap=colour_map, interpolation="nearest")
    plain_axes(ax, title, (x_from, x_to), (y_from, y_to))
    _rings(ax, max(x_to, y_to))
    if sample.boxes is not None:
        draw_footprints(ax, sample.boxes)
    if truth is not None:
        for lines in footprints(truth.boxes):
            draw_lines(ax, lines, TRUTH, 0.9, dashed=True)
    _ego(ax)


def draw_footprints(ax: Axes, boxes: ScoredBoxes) -> None:
    """Boxes from above; the line from the centre leaves through the front. Sure ones lie on top."""
    lines, colours = footprints(boxes.boxes), score_colours(boxes.scores)
    for row in np.argsort(boxes.scores, kind="stable"):
        draw_lines(ax, lines[row], colours[row], 1.0)


def footprints(boxes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outline and heading of every box (n, ≥ 7) from above, as polylines in metres."""
    corners = box_corners(boxes)[..., :2]
    return [
        (corners[row][[0, 2, 6, 4, 0]], np.stack((box[:2], corners[row][[4, 6]].mean(axis=0))))
        for row, box in enumerate(boxes)
    ]


def _bev_hw(sample: Sample) -> tuple[int, int]:
    return sample.arrays[sample.bev_map].shape[-2:] if sample.bev_map else (200, 200)


def _rings(ax: Axes, reach_m: float) -> None:
    angle = np.linspace(0, 2 * np.pi, 181)
    for radius in range(_RING_STEP_M, int(reach_m * 1.4), _RING_STEP_M):
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), color=FAINT, linewidth=0.5, alpha=0.7)
        if radius < reach_m:
            ax.text(0, radius, f"{radius} m", color=INK, fontsize=6, ha="center", path_effects=outline())


def _ego(ax: Axes) -> None:
    from matplotlib.patches import Polygon

    half_w, half_l = _EGO_WIDTH_M / 2, _EGO_LENGTH_M / 2
    shape = [
        (-half_w, -half_l),
        (-half_w, half_l * 0.4),
        (0, half_l),
        (half_w, half_l * 0.4),
        (half_w, -half_l),
    ]
    ax.add_patch(Polygon(shape, closed=True, facecolor="#39d98a", edgecolor="black", linewidth=0.8, zorder=5))
