"""A detector whose maps lie in the ego frame must say how to get there."""

from __future__ import annotations

import pytest
import torch

from cache_schema.array_spec import ArraySpec
from camera3d.detectors import OutputSpec
from camera3d.detectors.base import CameraDetector
from camera3d.detectors.protocol import BEV_MAP
from camera3d.errors import ConfigInvalid
from extract.focal_areas import FocalAreas, FocalOptions
from extract.store_spec import teacher_arrays

SPEC = OutputSpec(
    name="bev_feats",
    role=BEV_MAP,
    shape=(4, 16, 16),
    dimension_names=("channel", "bev_y", "bev_x"),
    extent_m=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
    frame="ego",
)


class InEgo(CameraDetector):
    """One map in the ego frame."""

    class_names = ("car",)

    def output_specs(self, image_hw):
        return (SPEC,)


def test_without_lidar2ego_it_is_refused():
    with pytest.raises(ConfigInvalid, match="InEgo: bev_feats in the ego frame, and lidar2ego is not"):
        teacher_arrays(InEgo(), (32, 32), ("bev",))


def test_the_matrix_is_stored_with_the_map():
    detector = InEgo()
    detector.inputs = ("images", "lidar2ego")
    stored, _ = teacher_arrays(detector, (32, 32), ("bev",))
    named = {array.name: array for array in stored}
    assert named["bev_feats"].frame == "ego"
    assert (named["lidar2ego"].shape, named["lidar2ego"].dtype) == ((4, 4), "float64")


@pytest.mark.parametrize(("frame", "kept"), [("lidar", []), ("ego", [0])])
def test_what_the_range_leaves_out_follows_its_frame(frame, kept):
    """Behind the vehicle by 51.5 m as the LiDAR sees it, by 50.6 m as the ego does."""
    lidar2ego = torch.tensor([[0.0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]]).double()

    class Truth:
        gt_boxes = torch.tensor([[0.0, -51.5, 0, 4, 2, 1.5, 0, 0, 0]]).double().numpy()

    areas = FocalAreas(FocalOptions(), arrays=[], range_m=SPEC.extent_m, range_frame=frame)
    found = areas._ground_truth(Truth(), lidar2ego)
    assert len(found) == len(kept)


def test_areas_follow_the_frame():
    """A car ahead of the vehicle, on the LiDAR's y axis, lies on the ego's x axis."""
    lidar2ego = torch.tensor(
        [[0.0, 1, 0, 0.9], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]], dtype=torch.float64
    )
    tensors = {
        "detection_boxes": torch.tensor([[0.0, 40.0, 0.0, 4.0, 2.0, 1.5, 1.57, 0.0, 0.0]]),
        "detection_scores": torch.tensor([0.9]),
        "lidar2img": torch.eye(4).expand(6, 4, 4),
        "lidar2ego": lidar2ego,
    }
    array: ArraySpec = ArraySpec.of_output(SPEC)
    areas = FocalAreas(FocalOptions(bev_margin_m=0.5), arrays=[array], range_m=None)

    class NoTruth:
        gt_boxes = torch.zeros(0, 9).numpy()

    rows, columns = areas.kept(NoTruth(), tensors).areas["bev_feats"].nonzero()
    assert set(rows) <= {7, 8}
    assert set(columns) == {14}
