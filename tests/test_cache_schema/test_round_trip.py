"""What was written comes back bit for bit, through our reader and through everybody else's."""

import filecmp
import os
import warnings

import numpy as np
import pytest
import tensorstore
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from store_cases import SMALL_ARRAYS, about, sample_list, sample_values, small_spec, small_store, write_scene

from cache_schema import zarr_metadata
from cache_schema.array_spec import DTYPES, ArraySpec
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter


@st.composite
def array_specs(draw):
    """One to three arrays whose dimensions never clash."""
    specs = []
    for number in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
        specs.append(
            ArraySpec(
                name=f"array{number}",
                role="dense_head",
                dtype=draw(st.sampled_from(DTYPES)),
                shape=shape,
                dimension_names=tuple(f"d{number}_{axis}" for axis in range(len(shape))),
                compressed=draw(st.booleans()),
            )
        )
    return tuple(specs)


@settings(max_examples=25, deadline=None)
@given(arrays=array_specs(), n_samples=st.integers(1, 9), shard_nbytes=st.sampled_from([1, 300, 1 << 30]))
def test_any_array_comes_back(tmp_path_factory, arrays, n_samples, shard_nbytes):
    path = tmp_path_factory.mktemp("store") / "teacher.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zarr_metadata, "MAX_SHARD_NBYTES", shard_nbytes)
        zarr_metadata.array_metadata.cache_clear()
        tokens = write_scene(StoreWriter.create(path, small_spec(arrays)), "scene-1", n_samples, arrays)
        zarr_metadata.array_metadata.cache_clear()
    reader = TargetReader(path)
    group = zarr.open_group(path / "scenes" / "scene-1", mode="r")
    for row, token in enumerate(tokens):
        expected = sample_values(token, arrays)
        stored = reader[token]
        assert list(stored) == [array.name for array in arrays]
        for name, values in expected.items():
            assert_same(stored[name], values)
            assert_same(np.asarray(group[name][row]), values)


@pytest.fixture
def sharded_scene(tmp_path, monkeypatch):
    """A scene of seven samples, whose query boxes lie in shards of two with the last one half empty."""
    monkeypatch.setattr(zarr_metadata, "MAX_SHARD_NBYTES", 5000)
    zarr_metadata.array_metadata.cache_clear()
    path = small_store(tmp_path / "teacher.zarr", {"scene-0001": 7})
    yield path / "scenes" / "scene-0001"
    zarr_metadata.array_metadata.cache_clear()


def test_shards_are_few_and_equal(sharded_scene):
    assert sorted(os.listdir(sharded_scene / "query_boxes")) == [
        *(f"c.{number}.0.0.0" for number in range(4)),
        "zarr.json",
    ]
    assert sorted(os.listdir(sharded_scene / "can_bus")) == ["c.0.0", "zarr.json"]


def test_samples_per_shard_at_full_size():
    pv_feats = ArraySpec(
        name="pv_feats_0",
        **about("pv_feats_0"),
        dtype="float16",
        shape=(6, 256, 116, 200),
        dimension_names=("camera", "channel", "y", "x"),
        compressed=False,
    )
    assert zarr_metadata.samples_per_shard(pv_feats, 40) == 14  # three shards of at most 1 GiB
    assert zarr_metadata.samples_per_shard(pv_feats, 1) == 1
    assert zarr_metadata.samples_per_shard(SMALL_ARRAYS[0], 40) == 40


def test_xarray_opens_a_scene_without_a_warning(sharded_scene):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(sharded_scene, chunks=None)
        assert dataset.sizes["sample"] == 7
        assert dataset["bev_feats"].dims == ("sample", "channel", "bev_y", "bev_x")
        for row, token in enumerate(dataset.attrs["sample_tokens"]):
            for name, values in sample_values(token).items():
                assert_same(dataset[name][row].values, values)
    assert [(t, int(us)) for t, us in zip(*_rows(dataset), strict=True)] == sample_list("scene-0001", 7)


def _rows(dataset):
    return dataset.attrs["sample_tokens"], dataset.attrs["timestamps_us"]


@pytest.mark.parametrize("name", [array.name for array in SMALL_ARRAYS])
def test_tensorstore_reads_a_scene(sharded_scene, name):
    kvstore = {"driver": "file", "path": str(sharded_scene / name)}
    stored = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result().read().result()
    for row, (token, _) in enumerate(sample_list("scene-0001", 7)):
        assert_same(stored[row], sample_values(token)[name])


def test_same_input_gives_same_bytes(tmp_path):
    first = small_store(tmp_path / "a" / "teacher.zarr", {"scene-1": 3, "scene-2": 2})
    second = small_store(tmp_path / "b" / "other-name.zarr", {"scene-2": 2, "scene-1": 3})
    files = sorted(str(path.relative_to(first)) for path in first.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(second)) for path in second.rglob("*") if path.is_file())
    equal, different, unreadable = filecmp.cmpfiles(first, second, files, shallow=False)
    assert (len(equal), different, unreadable) == (len(files), [], [])


def test_teacher_head_comes_back(tmp_path):
    path = small_store(tmp_path / "teacher.zarr", {})
    rng = np.random.default_rng(0)
    head = {
        "decoder.layers.0.attn.weight": rng.normal(size=(6, 4)).astype(np.float32),
        "decoder.layers.0.attn.bias": rng.normal(size=6).astype(np.float32).reshape(2, 3).T,
        "scale": np.array(3.5, np.float32),
    }
    StoreWriter.open(path).write_teacher_head(head)
    stored = TargetReader(path).read_teacher_head()
    assert sorted(stored) == sorted(head)
    for name, values in head.items():
        assert_same(stored[name], values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(path / "teacher_head", chunks=None)
        assert_same(dataset["decoder.layers.0.attn.weight"].values, head["decoder.layers.0.attn.weight"])


def assert_same(got, expected):
    """Equal in dtype, shape and every bit."""
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(expected).tobytes()
