"""Pictures of maps in the ego frame: boxes, kept in the LiDAR frame, are drawn where the map has them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cache_schema.inspection import bev_panels
from cache_schema.inspection.boxes import ScoredBoxes

# The LiDAR's y axis points ahead, the ego's x axis; the LiDAR stands 0.9 m ahead of the ego's origin.
LIDAR2EGO = np.array([[0.0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])
AHEAD = np.array([[0.0, 20.0, 0.0, 4.0, 2.0, 1.5, np.pi / 2, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("lidar2map", "centre", "along"), [(None, (0.0, 20.0), (0.0, 2.0)), (LIDAR2EGO, (20.9, 0.0), (2.0, 0.0))]
)
def test_footprints(monkeypatch, lidar2map, centre, along):
    drawn = []
    monkeypatch.setattr(bev_panels, "draw_lines", lambda ax, lines, *style: drawn.extend(lines))
    boxes = ScoredBoxes(boxes=AHEAD, scores=np.array([0.9]), labels=np.array([0]), threshold=0.3)
    bev_panels.draw_footprints(None, boxes, lidar2map)
    outline, heading = drawn
    np.testing.assert_allclose(outline[:4].mean(axis=0), centre, atol=1e-9)
    np.testing.assert_allclose(heading[1] - heading[0], along, atol=1e-9)


def test_the_truth_moves_with_the_boxes(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        bev_panels, "draw_lines", lambda ax, lines, *style, dashed=False: drawn.append((lines, dashed))
    )
    for name in ("plain_axes", "_rings", "_ego"):
        monkeypatch.setattr(bev_panels, name, lambda *given, **keywords: None)
    boxes = ScoredBoxes(boxes=AHEAD, scores=np.array([0.9]), labels=np.array([0]), threshold=0.3)
    sample = SimpleNamespace(range_m=(-51.2, -51.2, -5, 51.2, 51.2, 3), boxes=boxes, lidar2map=LIDAR2EGO)
    bev_panels.draw_bev(None, sample, SimpleNamespace(boxes=AHEAD), "", None, None)
    (of_teacher, dashed), (of_truth, dashed_too) = drawn
    assert (dashed, dashed_too) == (False, True)
    np.testing.assert_allclose(of_truth[0][:4].mean(axis=0), (20.9, 0.0), atol=1e-9)
    for ours, theirs in zip(of_truth, of_teacher, strict=True):
        np.testing.assert_allclose(ours, theirs)
