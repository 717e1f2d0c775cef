"""int8 maps come back within half a scale, and the hard cases are defined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cache_schema.profiles.compact import float_maps
from cache_schema.quantise import dequantise, quantise, quantise_rows


@settings(max_examples=150, deadline=None)
@given(
    values=st.sampled_from([(np.float16, 16), (np.float32, 32)]).flatmap(
        lambda kind: hnp.arrays(
            kind[0],
            hnp.array_shapes(min_dims=3, max_dims=4, max_side=4),
            elements=st.floats(allow_nan=False, allow_infinity=False, width=kind[1]),
        )
    )
)
def test_error_is_at_most_half_a_scale(values):
    quantised, scales = quantise(values)
    assert (quantised.dtype, quantised.shape) == (np.int8, values.shape)
    assert (scales.dtype, scales.shape) == (np.float32, values.shape[:-2])
    assert quantised.min() >= -127
    assert np.isfinite(scales).all()
    back = dequantise(quantised, scales)
    assert back.dtype == np.float32
    error = np.abs(back.astype(np.float64) - values)
    # Besides half a scale: the float32 roundings of scale, quotient and product, and the smallest normal.
    allowed = scales[..., None, None].astype(np.float64) * (0.5 + 1e-4) + 127 * np.finfo(np.float32).tiny
    assert (error <= allowed).all()


def test_known_values():
    values = np.array([[[-254, 1, 3], [254, 5, 0]], [[0, 0, 0], [0, 0, 0]]], np.float16)
    quantised, scales = quantise(values)
    # With scale 2, 1 and 3 and 5 are halfway and go to the even neighbour.
    assert quantised.tolist() == [[[-127, 0, 2], [127, 2, 0]], [[0, 0, 0], [0, 0, 0]]]
    assert scales.tolist() == [2.0, 0.0]
    assert dequantise(quantised, scales)[1].tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_extremes_do_not_overflow(dtype):
    limits = np.finfo(dtype)
    values = np.array([[[limits.max, limits.min]], [[limits.tiny, -limits.tiny]]], dtype)
    quantised, scales = quantise(values)
    assert quantised[0].tolist() == [[127, -127]]
    assert np.isfinite(dequantise(quantised, scales)).all()


def test_channels_and_cameras_are_scaled_for_themselves():
    values = np.random.default_rng(0).normal(size=(2, 3, 5, 4)).astype(np.float16)
    quantised, scales = quantise(values)
    for camera in range(2):
        for channel in range(3):
            alone, scale = quantise(values[camera, channel][None])
            np.testing.assert_array_equal(alone[0], quantised[camera, channel])
            assert scale[0] == scales[camera, channel]


def test_no_values_at_all():
    quantised, scales = quantise_rows(np.empty((3, 0), np.float16))
    assert quantised.shape == (3, 0)
    assert scales.tolist() == [0, 0, 0]


def test_only_arrays_with_a_scale_are_turned_into_floats():
    values = np.random.default_rng(1).normal(size=(3, 2, 2)).astype(np.float32)
    quantised, scales = quantise(values)
    boxes = np.ones((2, 2), np.float32)
    maps = float_maps({"bev_feats": quantised, "bev_feats_scale": scales, "query_boxes": boxes})
    assert list(maps) == ["bev_feats", "query_boxes"]
    np.testing.assert_allclose(maps["bev_feats"], values, atol=scales.max() / 2 * 1.001)
    assert maps["query_boxes"] is boxes
