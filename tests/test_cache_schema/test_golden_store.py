"""Stores of this schema version read as they ever did, and today's writer makes the same bytes."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from cache_schema import codec
from cache_schema.errors import SchemaTooNew, SchemaTooOld
from cache_schema.fields import canonical_json
from cache_schema.layers import open_layer
from cache_schema.profiles.compact import float_maps
from cache_schema.reader import TargetReader
from cache_schema.seal import read_seal
from cache_schema.spec import SCHEMA_VERSION
from cache_schema.writer import StoreWriter

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))

from make_stores import (  # noqa: E402
    LAYER,
    LAYERED,
    PROFILES,
    store_name,
    write_golden_layer,
    write_golden_store,
)

# The BEV map of sample "token-a" as the teacher gave it; the channel's last rows are left out here.
BEV_ROWS = [[-2.75, -1.0, 0.75, 2.5, -1.5], [0.25, 2.0, -2.0, -0.25, 1.5]]


def contents(store):
    """Every file of a store by its relative path."""
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def golden(profile):
    return GOLDEN / store_name(profile)


@pytest.mark.parametrize("profile", PROFILES)
def test_todays_writer_makes_the_same_bytes(tmp_path, profile):
    write_golden_store(tmp_path / "store", profile)
    ours, golden_files = contents(tmp_path / "store"), contents(golden(profile))
    assert sorted(ours) == sorted(golden_files)
    assert [path for path in ours if ours[path] != golden_files[path]] == []


def test_a_layer_has_the_same_bytes_and_its_store_those_without_one(tmp_path):
    write_golden_store(tmp_path / "store", "exact")
    write_golden_layer(tmp_path / "store")
    golden_files = contents(golden(LAYERED))
    assert contents(tmp_path / "store") == golden_files
    own = {path: data for path, data in golden_files.items() if not path.startswith("layers/")}
    assert own == contents(golden("exact"))


def test_what_a_layer_holds():
    store = TargetReader(golden(LAYERED))
    layer = open_layer(store, LAYER)
    assert layer.spec.layer.store_digest == store.digest
    assert layer.spec.layer.reads == "bev_feats"
    sample = layer.read_focal("token-a")
    assert sample.query_index.tolist() == [1, 3]
    assert sample.queries["query_logits"].tolist() == [[[2.0, -2.0], [-2.5, -0.75]]]
    assert layer.read_teacher_head()["scale"] == -3.0


@pytest.mark.parametrize("profile", PROFILES)
def test_what_every_profile_holds(profile):
    reader = TargetReader(golden(profile), expect={"profile": profile, "schema_version": SCHEMA_VERSION})
    assert reader.spec.written_by == "focalcache 0.1.0"
    assert reader.scenes == {"scene-0061": ("token-a", "token-b")}
    assert reader.timestamp_us("token-b") == 1_532_402_927_500_000
    can_bus = reader.read("token-b", ["can_bus"])["can_bus"]
    assert can_bus[:4].tolist() == [-1.5, 0.25, 2.0, -2.0]
    head = reader.read_teacher_head()
    assert {name: values.tolist() for name, values in head.items()} == {
        "decoder.weight": [[0.5, -1.0], [2.0, 0.25]],
        "scale": 3.0,
    }
    assert read_seal(golden(profile)).n_samples == 2


def test_exact():
    sample = TargetReader(golden("exact"))["token-a"]
    assert sample["bev_feats"][0, :2].tolist() == BEV_ROWS
    assert sample["query_logits"].tolist() == [[[-2.75, -1.0], [0.75, 2.5], [-1.5, 0.25], [2.0, -2.0]]]


def test_compact():
    sample = TargetReader(golden("compact"))["token-a"]
    assert sample["bev_feats"][0, :2].tolist() == [[-127, -46, 35, 115, -69], [12, 92, -92, -12, 69]]
    assert sample["bev_feats_scale"].tolist() == [np.float32(2.75 / 127)] * 2
    np.testing.assert_allclose(float_maps(sample)["bev_feats"][0, :2], BEV_ROWS, atol=2.75 / 254)


def test_focal():
    reader = TargetReader(golden("focal"))
    sample = reader.read_focal("token-a")
    bev = sample.maps["bev_feats"]
    assert bev.cell_index.tolist() == [1, 2, 19]
    assert bev.cells.tolist() == [[-73, 0], [54, 0], [127, 127]]
    assert bev.background.tolist()[1] == [[103, -40, 127], [48, -56, 95]]
    assert bev.background_scale.tolist() == [np.float32(0.5 / 127), np.float32(1 / 127)]
    np.testing.assert_allclose(bev.values()[0, 0], [0, -1.006, 0.744, 0, 0], atol=1e-3)
    pv = sample.maps["pv_feats_0"]
    assert pv.cell_index.tolist() == [6, 12, 23]
    assert pv.cells.tolist() == [[127, 0], [-127, 127], [127, -46]]
    assert sample.query_index.tolist() == [1, 3]
    assert sample.queries["query_logits"].tolist() == [[[0.75, 2.5], [2.0, -2.0]]]
    empty = reader.read_focal("token-b")
    assert (empty.query_index.size, empty.maps["bev_feats"].cells.shape) == (0, (0, 2))
    assert empty.queries["query_logits"].shape == (1, 0, 2)
    assert not empty.maps["bev_feats"].values().any()


def test_focal_with_nothing_but_zarr():
    scene = zarr.open_group(golden("focal") / "scenes" / "scene-0061", mode="r")
    row = scene.attrs["sample_tokens"].index("token-a")
    ours = TargetReader(golden("focal")).read_focal("token-a")
    for name in ("bev_feats", "pv_feats_0"):
        mask = scene[f"{name}_mask"][row]
        cells = scene[f"{name}_cells"][row, : mask.sum()]
        scale = scene[f"{name}_scale"][row]
        # One scale a channel, and a camera where there are cameras.
        dense = np.zeros((*mask.shape, cells.shape[1]), np.float32)
        dense[mask] = cells
        dense = np.moveaxis(dense, -1, -3) * scale[..., None, None]
        np.testing.assert_array_equal(dense, ours.maps[name].values())
        assert (np.asarray(scene[f"{name}_cells"][row, mask.sum() :]) == -128).all()
    confident = scene["query_confident"][row]
    logits = scene["query_logits"][row, : confident.sum()]
    np.testing.assert_array_equal(logits.swapaxes(0, 1), ours.queries["query_logits"])


def test_compact_with_nothing_but_zarr():
    scene = zarr.open_group(golden("compact") / "scenes" / "scene-0061", mode="r")
    maps = scene["pv_feats_0"][0] * scene["pv_feats_0_scale"][0][..., None, None]
    np.testing.assert_array_equal(maps, float_maps(TargetReader(golden("compact"))["token-a"])["pv_feats_0"])


@pytest.mark.parametrize(("profile", "snippet"), [("compact", 1), ("focal", 2)])
def test_the_snippets_of_the_format_page_run(profile, snippet):
    page = (GOLDEN.parents[1] / "docs" / "store-format.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[snippet].replace("focal_feats", "query_logits")
    scene = xarray.open_zarr(golden(profile) / "scenes" / "scene-0061", chunks=None)
    names = {"scene": scene, "row": 0, "numpy": np}
    exec(code, names)
    reader = TargetReader(golden(profile))
    if profile == "compact":
        maps = float_maps(reader["token-a"])
        np.testing.assert_array_equal(names["bev_feats"], maps["bev_feats"])
        np.testing.assert_array_equal(names["pv_feats_0"], maps["pv_feats_0"])
    else:
        maps = reader.read_focal("token-a").maps
        inside = np.nan_to_num(np.moveaxis(names["bev_feats"], -1, 0))
        np.testing.assert_array_equal(inside, maps["bev_feats"].values())
        np.testing.assert_array_equal(names["pv_cells"], maps["pv_feats_0"].cell_values())


@pytest.mark.parametrize("opener", [TargetReader, StoreWriter.open], ids=["reader", "writer"])
def test_a_later_schema_is_refused_by_name(tmp_path, opener):
    store = tmp_path / "store"
    shutil.copytree(golden("exact"), store)
    root = json.loads((store / "zarr.json").read_text())
    later = {"schema_version": SCHEMA_VERSION + 1, "written_by": "focalcache 3.0.0"}
    spec = root["attributes"]["focalcache"] | later
    root["attributes"] |= {"focalcache": spec, "focalcache_crc32c": codec.crc32c(canonical_json(spec))}
    (store / "zarr.json").write_text(json.dumps(root))
    says = rf"focalcache 3\.0\.0' with schema_version {SCHEMA_VERSION + 1}; .* reads {SCHEMA_VERSION}\."
    with pytest.raises(SchemaTooNew, match=says):
        opener(store)


def test_an_earlier_schema_is_refused_with_the_way_out():
    old = GOLDEN / "store-v1"
    with pytest.raises(
        SchemaTooOld, match=r"schema_version 1; [^\n]*\n[^\n]*dump it again with this release"
    ):
        TargetReader(old)


def test_detections():
    reader = TargetReader(golden("focal"))
    sample, empty = reader["token-a"], reader["token-b"]
    assert sample["detection_boxes"].shape == (2, 9)
    assert sample["detection_scores"].tolist() == [2.75, 1.0]
    assert (empty["detection_boxes"].shape, empty["detection_labels"].shape) == ((0, 9), (0,))
