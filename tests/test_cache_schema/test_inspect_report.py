"""`report` writes one page that stands alone, and says what the store says."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from corruption_cases import profile_spec, profile_store, sealed_store
from page_cases import facts_of, faults_of
from store_cases import small_spec, write_scene
from truth_cases import ground_truth_store

from cache_schema import inspect_cache
from cache_schema.inspection.sample import load_sample
from cache_schema.pages.choice import chosen_samples
from cache_schema.writer import StoreWriter


def report(store, out, *argv):
    return inspect_cache.main(["report", str(store), "--out", str(out), *map(str, argv)])


@pytest.fixture(scope="module")
def tiny(tiny_nuscenes):
    from camera3d.data import build_index

    dataroot = tiny_nuscenes(scenes={"scene-0061": 1})
    (frame,) = build_index(dataroot, "v1.0-mini", "mini_train")
    return dataroot, frame


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_every_profile_has_a_page(tmp_path, profile, capsys):
    store = profile_store(tmp_path / "s.zarr", profile, {"scene-0001": 3, "scene-0002": 2})
    assert report(store, tmp_path / "r.html") == 0
    assert str(tmp_path / "r.html") in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text()
    assert faults_of(page) == []
    for words in ("Every byte is as it was written", "bev_feats", "mini_train", "5 in 2 scenes", "5c5c5c5c"):
        assert words in page
    facts = facts_of(page)
    assert [(f["scene"], f["seconds"]) for f in facts["frames"]] == [
        ("scene-0001", 0.0),
        ("scene-0001", 0.5),
        ("scene-0001", 1.0),
        ("scene-0002", 0.0),
        ("scene-0002", 0.5),
    ]
    assert all(f["truth"] is None and len(f["cameras"]) == 2 for f in facts["frames"])
    kept = [layer for layer in facts["frames"][0]["layers"] if "cells that the store keeps" in layer["title"]]
    assert len(kept) == (profile == "focal")
    assert ("int8" in page) == (profile != "exact")


@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_boxes_and_ground_truth_are_those_of_store_and_dataset(tiny, tmp_path):
    dataroot, frame = tiny
    truth = ground_truth_store(tmp_path / "s.zarr", frame, 0.5)
    assert report(tmp_path / "s.zarr", tmp_path / "r.html", "--dataroot", dataroot) == 0
    facts = facts_of((tmp_path / "r.html").read_text())
    (drawn,) = facts["frames"]
    assert facts["min_score"] == 0.3
    stored = load_sample(tmp_path / "s.zarr", frame.sample_token, 0.0).boxes
    np.testing.assert_allclose(drawn["boxes"], stored.boxes[:, :7], rtol=1e-5)
    np.testing.assert_allclose(drawn["scores"], stored.scores, rtol=1e-5)
    near = [row for row in drawn["truth"]["boxes"] if max(abs(row[0]), abs(row[1])) < 51.2]
    np.testing.assert_allclose(near, truth[:, :7], rtol=1e-4, atol=1e-5)
    scaled = np.array(drawn["cameras"][1]["lidar2img"])
    assert drawn["cameras"][1]["name"] == "CAM_FRONT"
    np.testing.assert_allclose(scaled, load_lidar2img(tmp_path / "s.zarr", frame, "CAM_FRONT"), rtol=1e-5)
    assert all(camera["picture"].startswith("data:image/jpeg") for camera in drawn["cameras"])
    assert report(tmp_path / "s.zarr", tmp_path / "r.html", "--min-score", 0.99) == 0
    least = facts_of((tmp_path / "r.html").read_text())["min_score"]
    assert 0 <= min(drawn["scores"]) - least < 0.01  # otherwise there would be no box to see


def load_lidar2img(store, frame, camera):
    sample = load_sample(store, frame.sample_token, 0.0)
    return sample.arrays["lidar2img"][sample.spec.inputs.camera_order.index(camera)][:3]


def test_a_damaged_sample_is_named_and_the_others_are_shown(tmp_path, capsys):
    store = profile_store(tmp_path / "s.zarr", "exact", {"scene-0001": 1, "scene-0002": 1})
    (shard,) = (store / "scenes/scene-0002/bev_feats").glob("c.*")
    data = bytearray(shard.read_bytes())
    data[3] ^= 0xFF
    shard.write_bytes(data)
    assert report(store, tmp_path / "r.html") == 1
    assert "The store is not whole" in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text()
    assert "Not shown: sample scene-0002-token0" in page
    assert "1 faults." not in page
    assert "1 fault." in page
    assert [f["scene"] for f in facts_of(page)["frames"]] == ["scene-0001"]


def test_what_is_unfinished_is_said(tmp_path):
    writer = StoreWriter.create(tmp_path / "s.zarr", small_spec(), planned={"scene-0001": 1, "scene-0002": 1})
    write_scene(writer, "scene-0001", 1)
    assert report(tmp_path / "s.zarr", tmp_path / "r.html") == 1
    assert "Not all of the plan is there yet" in (tmp_path / "r.html").read_text()
    assert report(tmp_path / "s.zarr", tmp_path / "r.html", "--skip-verify") == 0
    assert "--skip-verify was given" in (tmp_path / "r.html").read_text()


def test_a_store_without_scenes_has_a_page(tmp_path):
    StoreWriter.create(tmp_path / "s.zarr", small_spec(), planned={"scene-0001": 1})
    assert report(tmp_path / "s.zarr", tmp_path / "r.html") == 1
    page = (tmp_path / "r.html").read_text()
    assert faults_of(page) == []
    assert "No sample can be shown" in page


def test_no_name_becomes_markup(tmp_path):
    spec = profile_spec("exact")
    nasty = "</script><img src=x onerror=alert(1)>"
    spec = replace(
        spec,
        teacher=replace(spec.teacher, detector=nasty),
        outputs=replace(spec.outputs, class_names=(nasty, "truck")),
    )
    store = sealed_store(tmp_path / "s.zarr", {"scene-0001": 1}, spec)
    assert report(store, tmp_path / "r.html") == 0
    page = (tmp_path / "r.html").read_text()
    assert faults_of(page) == []
    assert "<img src=x" not in page
    assert facts_of(page)["class_names"][0] == nasty


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("no Pillow", "pip install 'focalcache[inspect]'"),
        ("no folder", "there is no folder"),
        ("no store", "StoreNotFound"),
        ("no dataset", "sensor.json is missing"),
    ],
)
def test_refusals_are_one_message(tmp_path, capsys, monkeypatch, change, words):
    store, out, argv = profile_store(tmp_path / "s.zarr", "exact", {"scene-0001": 1}), tmp_path / "r.html", []
    if change == "no Pillow":
        monkeypatch.setitem(sys.modules, "PIL", None)
    elif change == "no folder":
        out = tmp_path / "nowhere" / "r.html"
    elif change == "no store":
        store = tmp_path / "none.zarr"
    else:
        argv = ["--dataroot", tmp_path]
    assert report(store, out, *argv) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("scenes", "n_samples", "expected"),
    [
        ({"a": "12345", "b": "12345", "c": "12345"}, 8, {"a": "1245", "c": "1245"}),
        ({"a": "12", "b": "1"}, 12, {"a": "12", "b": "1"}),
        ({"a": "123456789"}, 3, {"a": "159"}),
        ({"a": "1", "b": "1", "c": "1", "d": "1"}, 4, {"a": "1", "b": "1", "c": "1", "d": "1"}),
        ({}, 4, {}),
    ],
    ids=["two of three scenes", "all there are", "one scene", "short scenes", "none"],
)
def test_samples_are_spread_over_scenes_and_time(scenes, n_samples, expected):
    assert chosen_samples(scenes, n_samples) == {name: list(tokens) for name, tokens in expected.items()}


def test_tokens_are_what_show_takes(tmp_path, capsys):
    store = profile_store(tmp_path / "s.zarr", "compact", {"scene-0001": 2, "scene-0002": 1})
    assert inspect_cache.main(["tokens", str(store)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["scene-0001", "scene-0001-token0"],
        ["scene-0001", "scene-0001-token1"],
        ["scene-0002", "scene-0002-token0"],
    ]
    assert inspect_cache.main(["tokens", str(store), "--json"]) == 0
    scenes = json.loads(capsys.readouterr().out)["scenes"]
    assert scenes == {
        "scene-0001": ["scene-0001-token0", "scene-0001-token1"],
        "scene-0002": ["scene-0002-token0"],
    }
    for _, token in lines:
        assert inspect_cache.main(["show", str(store), token]) == 0


def test_a_page_needs_no_torch(tmp_path):
    store = profile_store(tmp_path / "s.zarr", "focal", {"scene-0001": 1})
    code = (
        "import sys\nfor name in ('torch', 'mmengine', 'nuscenes', 'matplotlib'): sys.modules[name] = None\n"
        "from cache_schema.inspect_cache import main\nsys.exit(main(sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, "report", store, "--out", tmp_path / "r.html"], check=True)
