"""Box conventions: round trips, and the official numbers."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camera3d.boxes import decode_official, encode_official, limit_period, swap_yaw, to_legacy

metres = st.floats(-60, 60, width=32)
sizes = st.floats(0.125, 20, width=32)
angles = st.floats(-10, 10, width=32)
boxes = st.tuples(metres, metres, metres, sizes, sizes, sizes, angles, metres, metres)


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes, max_size=5))
def test_encoding_round_trip(rows):
    ours = torch.tensor(rows, dtype=torch.float64).reshape(-1, 9)
    back = decode_official(encode_official(ours))
    difference = back - ours
    difference[:, 6] = limit_period(difference[:, 6])
    assert difference.abs().max().item() < 1e-9 if len(rows) else back.shape == (0, 9)


@settings(max_examples=60, deadline=None)
@given(angles)
def test_swapping_yaw_twice_changes_nothing(angle):
    yaw = torch.tensor(angle, dtype=torch.float64)
    assert limit_period(swap_yaw(swap_yaw(yaw)) - yaw).abs() < 1e-9


def test_a_car_that_looks_ahead():
    """In the LiDAR frame y points ahead: yaw π/2, which is -π in legacy terms, where w comes before l."""
    car = torch.tensor([1.0, 20.0, -1.0, 4.5, 1.9, 1.6, math.pi / 2, 0.0, 5.0])
    encoded = encode_official(car)
    expected = [1, 20, math.log(1.9), math.log(4.5), -1, math.log(1.6), 0, -1, 0, 5]
    torch.testing.assert_close(encoded, torch.tensor(expected), atol=1e-6, rtol=0)
    legacy = to_legacy(car)
    torch.testing.assert_close(legacy[2:7], torch.tensor([-1.8, 1.9, 4.5, 1.6, -math.pi]), atol=1e-5, rtol=0)
