"""Maps of two frames are maps of other places, however alike they are."""

from __future__ import annotations

from dataclasses import replace

from camera3d.detectors import OutputSpec
from camera3d.detectors.protocol import BEV_MAP
from train.distillers.compared import BevPair
from train.distillers.fit import _bev_faults


def test_a_student_in_the_lidar_frame_cannot_follow_a_map_in_the_ego_frame():
    student = OutputSpec(
        name="bev_feats",
        role=BEV_MAP,
        shape=(4, 16, 16),
        dimension_names=("channel", "bev_y", "bev_x"),
        extent_m=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
        frame="lidar",
    )
    reading = {"bev_generation": "raw"}
    assert _bev_faults(reading, BevPair(student=student, teacher=student)) == []
    (fault,) = _bev_faults(reading, BevPair(student=student, teacher=replace(student, frame="ego")))
    assert "(lidar frame), the teacher's" in fault
    assert "(ego frame)" in fault
