"""`info` says what a store is, for people and as JSON."""

import json

import pytest
from corruption_cases import profile_store, sealed_store
from store_cases import small_spec, write_scene

from cache_schema import inspect_cache
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 3, "scene-0002": 2}


def facts_of(store, capsys):
    assert inspect_cache.main(["info", str(store), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json(tmp_path, capsys):
    store = sealed_store(tmp_path / "teacher.zarr", SCENES)
    facts = facts_of(store, capsys)
    assert facts["profile"] == "exact"
    assert facts["scenes"] == SCENES
    assert facts["samples"] == 5
    assert facts["sealed"] is True
    assert facts["missing_scenes"] == []
    assert facts["teacher"]["trained"] is True
    assert facts["teacher"]["checkpoint_sha256"] == "5c" * 32
    assert facts["dataset"] == {"name": "nuscenes", "split": "mini_train", "version": "v1.0-mini"}
    assert facts["teacher_head"] == {"parameters": 2, "raw_bytes": 64}
    bev_feats = facts["arrays"][0]
    assert bev_feats["name"] == "bev_feats"
    assert bev_feats["raw_bytes"] == 5 * bev_feats["bytes_per_sample"] == 1200
    on_disk = sum(path.stat().st_size for path in store.glob("scenes/*/bev_feats/c.*"))
    assert bev_feats["disk_bytes"] == on_disk


def test_text(tmp_path, capsys):
    assert inspect_cache.main(["info", str(sealed_store(tmp_path / "teacher.zarr", SCENES))]) == 0
    out = capsys.readouterr().out
    for words in (
        "Toy, trained",
        "5 in 2 published scenes",
        "split mini_train",
        "sealed: finished",
        "4 × 6 × 5",
    ):
        assert words in out


def test_unfinished(tmp_path, capsys):
    writer = StoreWriter.create(tmp_path / "teacher.zarr", small_spec(), planned=SCENES)
    write_scene(writer, "scene-0001", 3)
    facts = facts_of(writer.path, capsys)
    assert facts["sealed"] is False
    assert facts["missing_scenes"] == ["scene-0002"]
    assert facts["teacher_head"] is None
    inspect_cache.main(["info", str(writer.path)])
    assert "1 planned scene not there yet" in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["compact", "focal"])
def test_stored_arrays_of_the_profile(tmp_path, capsys, profile):
    facts = facts_of(profile_store(tmp_path / "teacher.zarr", profile, SCENES), capsys)
    names = [array["name"] for array in facts["arrays"]]
    assert "bev_feats_scale" in names
    assert all(array["disk_bytes"] > 0 for array in facts["arrays"])


@pytest.mark.parametrize("command", ["info", "show", "verify", "diff", "plan"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit):
        inspect_cache.main([command, "--help"])
    assert f"inspect_cache.py {inspect_cache.EXAMPLES[command]}"[:60] in capsys.readouterr().out
