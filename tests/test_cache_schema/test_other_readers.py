"""A store tells readers that have none of our code what its numbers are, whose they are and of when."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from store_cases import SMALL_ARRAYS, about, sample_list, sample_values, small_spec, small_store, write_scene

from cache_schema.array_spec import ArraySpec
from cache_schema.errors import SpecInvalid
from cache_schema.fingerprint import digest
from cache_schema.inspection.repair import repair
from cache_schema.inspection.verify import verify
from cache_schema.manifest import SceneManifest, pack_manifest
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter

GOLDEN = Path(__file__).parents[1] / "golden"
# Written before arrays said how to read them, and scenes had coordinates.
EARLY = GOLDEN / "store-early-v2-focal"


def attributes(profile: str) -> dict[str, dict[str, object]]:
    """Those of every array of a golden store's scene."""
    scene = zarr.open_group(GOLDEN / f"store-v2-{profile}" / "scenes" / "scene-0061", mode="r")
    return {name: array.attrs.asdict() for name, array in scene.arrays()}


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_names_units_and_conventions(profile):
    found = attributes(profile)
    boxes = found["detection_boxes"]
    assert boxes["columns"] == ["x", "y", "z", "l", "w", "h", "yaw", "vx", "vy"]
    assert boxes["column_units"] == ["m"] * 6 + ["rad", "m/s", "m/s"]
    assert boxes["box_convention"] == "x, y, z, l, …"
    assert boxes["rows_from"] == "detection_scores"
    for name in ("detection_labels", "query_logits"):
        assert found[name]["class_names"] == ["car", "truck"]
    # The camera of a kept cell is that of its place in the mask.
    with_cameras = {name for name in found if name.startswith("pv_feats_0")} - {"pv_feats_0_cells"}
    assert all(found[name]["camera_names"] == ["CAM_FRONT", "CAM_BACK"] for name in with_cameras)


def test_query_boxes_name_their_encoding(tmp_path):
    store = small_store(tmp_path / "teacher.zarr", {"scene-1": 1})
    array = zarr.open_array(store / "scenes" / "scene-1" / "query_boxes", mode="r")
    assert array.attrs["box_encoding"] == "cx, cy, log w, …"


@pytest.mark.parametrize("profile", ["compact", "focal"])
def test_links_lead_to_arrays_of_the_scene(profile):
    found = attributes(profile)
    links = {
        (name, key): told[key]
        for name, told in found.items()
        for key in ("scale_array", "scale_of", "rows_from")
        if key in told
    }
    assert set(links.values()) <= set(found)
    int8 = {name for name in found if (name, "scale_array") in links}
    scene = zarr.open_group(GOLDEN / f"store-v2-{profile}" / "scenes" / "scene-0061", mode="r")
    assert int8 == {name for name, array in scene.arrays() if array.dtype == np.int8}
    if profile == "focal":
        assert found["bev_feats_background"]["block_cells"] == 2
        assert found["bev_feats_cells"]["map"] == "bev_feats"
        assert found["bev_feats_mask"]["extent_m"] == [-10.0, -8.0, -5.0, 10.0, 8.0, 3.0]


@pytest.mark.parametrize("profile", ["compact", "focal"])
def test_a_value_is_what_its_attribute_says(profile):
    """The formula is Python over the scene's arrays, so it is run here as it stands."""
    store = GOLDEN / f"store-v2-{profile}"
    scene = zarr.open_group(store / "scenes" / "scene-0061", mode="r")
    reader = TargetReader(store)
    for name, told in attributes(profile).items():
        if "value" not in told:
            continue
        arrays = {other: np.asarray(array[0]) for other, array in scene.arrays()}
        if "rows_from" in told:
            mask = arrays[told["rows_from"]]
            arrays[name] = arrays[name][: mask.sum()]
            arrays["camera"] = np.nonzero(mask)[0]
        got = eval(told["value"], arrays)
        if profile == "focal":
            stored = reader.read_focal("token-a").maps[told["map"]]
            expected = stored.cell_values() if name.endswith("_cells") else None
            if expected is not None:
                np.testing.assert_array_equal(got, expected)
        else:
            exact = TargetReader(GOLDEN / "store-v2-exact")["token-a"][name]
            np.testing.assert_allclose(got, exact, atol=2.75 / 254)


def test_the_root_opens_as_a_tree_of_all_scenes(tmp_path):
    store = small_store(tmp_path / "teacher.zarr", {"scene-1": 3, "scene-2": 2})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Object at (sealed\.json|index\.bin)")
        warnings.filterwarnings("error")
        tree = xarray.open_datatree(store, engine="zarr", chunks=None, consolidated=False)
    assert set(tree["scenes"].children) == {"scene-1", "scene-2"}
    for name, n_samples in (("scene-1", 3), ("scene-2", 2)):
        scene = tree[f"scenes/{name}"].to_dataset().set_xindex("sample_token")
        tokens, times = zip(*sample_list(name, n_samples), strict=True)
        assert scene["sample_token"].values.tolist() == list(tokens)
        assert scene["time"].values.astype("datetime64[us]").astype(int).tolist() == list(times)
        sample = scene.sel(sample_token=tokens[1])
        np.testing.assert_array_equal(sample["bev_feats"].values, sample_values(tokens[1])["bev_feats"])
        assert sample["bev_feats"].attrs["extent_m"] == [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]


@pytest.mark.parametrize("file", ["sample_token/c.0", "time/c.0", "time/zarr.json"])
def test_a_changed_coordinate_is_found_and_its_scene_taken_out(tmp_path, file):
    store = tmp_path / "store"
    writer = StoreWriter.create(store, small_spec(), planned={"scene-1": 2})
    write_scene(writer, "scene-1", 2)
    writer.seal()
    path = store / "scenes" / "scene-1" / file
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    findings = verify(store)
    assert [fault.path for fault in findings.faults] == [f"scenes/scene-1/{file}"]
    repair(store, findings)
    assert sorted(entry.name for entry in store.iterdir()) == ["scenes", "zarr.json"]


def test_a_store_from_before_is_read_verified_and_the_same_by_fingerprint():
    assert not verify(EARLY).faults
    early, today = TargetReader(EARLY), TargetReader(GOLDEN / "store-v2-focal")
    assert digest(early.spec) == digest(today.spec)
    for token in today.sample_tokens:
        for name, values in today[token].items():
            np.testing.assert_array_equal(early[token][name], values)


def test_a_store_that_was_begun_before_is_continued(tmp_path):
    """A dump that was cut short by an older release goes on with this one."""
    store = tmp_path / "store"
    writer = StoreWriter.create(store, small_spec(), planned={"scene-1": 2, "scene-2": 1})
    write_scene(writer, "scene-1", 2)
    old = store / "scenes" / "scene-1"
    for name in ("sample_token", "time"):
        shutil.rmtree(old / name)
    manifest = json.loads((old / "manifest.json").read_text())["manifest"]
    kept = [r for r in manifest["metadata_files"] if not r["path"].startswith(("sample_token/", "time/"))]
    (old / "manifest.json").write_bytes(
        pack_manifest(SceneManifest.from_dict(manifest | {"metadata_files": kept}))
    )
    writer = StoreWriter.open(store)
    write_scene(writer, "scene-2", 1)
    assert writer.seal()
    assert not verify(store).faults
    assert len(TargetReader(store)) == 3


@pytest.mark.parametrize("name", ["sample_token", "time"])
def test_no_array_takes_a_coordinates_name(name):
    taken = ArraySpec(
        name=name, **about("can_bus"), dtype="float64", shape=(2,), dimension_names=("two",), compressed=False
    )
    with pytest.raises(SpecInvalid, match=f'no array "{name}": it is the name of a coordinate'):
        small_spec((*SMALL_ARRAYS, taken))
