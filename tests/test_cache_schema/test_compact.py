"""The profile `compact`: int8 maps beside their scales, everything else as in `exact`."""

import numpy as np
import pytest
from profile_cases import TEACHER_ARRAYS, profile_spec, profile_store
from store_cases import sample_list, sample_values

from cache_schema.errors import NotFinite, SpecInvalid
from cache_schema.profiles.compact import float_maps
from cache_schema.quantise import dequantise, quantise
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter

TOKENS = [token for token, _ in sample_list("scene-1", 3)]
MAPS = ("pv_feats_0", "bev_feats")


def written(path, values):
    """A store with one sample; the reader of it."""
    writer = StoreWriter.create(path, profile_spec("compact"))
    with writer.scene("scene-1", "t", sample_list("scene-1", 1)) as scene:
        scene.append(TOKENS[0], values)
    return TargetReader(path)


def test_maps_come_back_within_half_a_scale_and_the_rest_bit_for_bit(tmp_path):
    reader = TargetReader(profile_store(tmp_path / "teacher.zarr", "compact"))
    for token in TOKENS:
        values = sample_values(token, TEACHER_ARRAYS)
        stored = reader[token]
        for name in MAPS:
            scale = stored[f"{name}_scale"]
            assert (stored[name].dtype, scale.dtype) == (np.int8, np.float32)
            assert scale.shape == values[name].shape[:-2]
            error = np.abs(dequantise(stored[name], scale) - values[name])
            assert (error <= scale[..., None, None] * 0.5001).all()
        for name in set(values) - set(MAPS):
            np.testing.assert_array_equal(stored[name], values[name])
        floats = float_maps(stored)
        assert set(floats) == set(values)
        assert {floats[name].dtype for name in MAPS} == {np.dtype(np.float32)}


def test_maps_that_come_quantised_are_stored_alike(tmp_path):
    values = sample_values(TOKENS[0], TEACHER_ARRAYS)
    ours = written(tmp_path / "ours.zarr", values)[TOKENS[0]]
    for name in MAPS:
        values[name], values[f"{name}_scale"] = quantise(values[name])
    theirs = written(tmp_path / "theirs.zarr", values)[TOKENS[0]]
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_bad_maps_are_refused(tmp_path):
    values = sample_values(TOKENS[0], TEACHER_ARRAYS)
    quantised, scale = quantise(values["bev_feats"])
    with pytest.raises(SpecInvalid, match=r"bev_feats +expected float16 \(3, 9, 8\); got int8"):
        written(tmp_path / "a.zarr", values | {"bev_feats": quantised})
    with pytest.raises(SpecInvalid, match=r"bev_feats +expected int8 \(3, 9, 8\); got float16"):
        written(tmp_path / "b.zarr", values | {"bev_feats_scale": scale})
    quantised[0, 0, 0] = -128
    with pytest.raises(SpecInvalid, match="at least -127; got -128"):
        written(tmp_path / "c.zarr", values | {"bev_feats": quantised, "bev_feats_scale": scale})
    values["bev_feats"][0, 0, 0] = np.inf
    with pytest.raises(NotFinite, match="bev_feats"):
        written(tmp_path / "d.zarr", values)


def test_arrays_that_are_no_maps_do_not_change_with_the_profile():
    exact, compact, focal = (profile_spec(profile) for profile in ("exact", "compact", "focal"))
    assert exact.stored_arrays == exact.arrays == compact.arrays == focal.arrays
    assert [array.name for array in compact.stored_arrays] == [
        "pv_feats_0",
        "pv_feats_0_scale",
        "bev_feats",
        "bev_feats_scale",
        "query_logits",
        "focal_feats",
        "can_bus",
    ]
    assert compact.stored_arrays[4:] == exact.arrays[2:]
    assert focal.array("can_bus") == exact.array("can_bus")
