"""`verify` finds what is wrong, wherever it is, and `--repair` takes out exactly what is damaged."""

import shutil

import numpy as np
import pytest
from corruption_cases import sealed_store
from store_cases import small_spec, small_store, write_scene

from cache_schema import inspect_cache
from cache_schema.inspection.repair import repair
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 3, "scene-0002": 2}


@pytest.fixture
def store(tmp_path):
    return sealed_store(tmp_path / "teacher.zarr", SCENES)


def flip(path, offset=-1):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_whole_store(store, capsys):
    assert inspect_cache.main(["verify", str(store)]) == 0
    out = capsys.readouterr().out
    assert "5 samples in 2 scenes" in out
    assert "sealed" in out
    assert "every byte is as it was written" in out


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("scenes/scene-0001/bev_feats/c.0.0.0.0", "index does not match"),
        ("scenes/scene-0001/bev_feats/zarr.json", "checksum"),
        ("scenes/scene-0001/zarr.json", "checksum"),
        ("scenes/scene-0001/manifest.json", "checksum"),
        ("scenes/zarr.json", "is not what a dump writes"),
        ("zarr.json", "is not JSON"),
        ("teacher_head/manifest.json", "checksum"),
        ("teacher_head/decoder.weight/c.0.0", "checksum"),
        ("teacher_head/decoder.weight/zarr.json", "checksum"),
        ("sealed.json", "checksum"),
    ],
)
def test_a_flipped_byte(store, path, words):
    flip(store / path)
    faults = verify(store).faults
    assert any(fault.path == path and words in fault.what for fault in faults), faults


def test_values_and_their_row(store):
    flip(store / "scenes/scene-0001/bev_feats/c.0.0.0.0", offset=240 + 7)
    (fault,) = verify(store).faults
    assert "row 1" in fault.what


@pytest.mark.parametrize(
    "path",
    ["scenes/scene-0002/can_bus/c.0.0", "teacher_head/decoder.bias/c.0", "scenes/scene-0002/zarr.json"],
)
def test_a_missing_file(store, path):
    (store / path).unlink()
    assert [(fault.path, fault.what) for fault in verify(store).faults] == [(path, "is gone")]


def test_a_cut_file(store):
    path = store / "scenes/scene-0002/can_bus/c.0.0"
    path.write_bytes(path.read_bytes()[:-1])
    (fault,) = verify(store).faults
    assert "were written" in fault.what


def test_files_that_do_not_belong_there(store):
    for path in ("notes.txt", "scenes/stray", "scenes/scene-0001/.DS_Store", "teacher_head/a/b"):
        (store / path).parent.mkdir(exist_ok=True)
        (store / path).write_text("?")
    findings = verify(store)
    assert [fault.path for fault in findings.faults] == [
        "notes.txt",
        "scenes/stray",
        "scenes/scene-0001/.DS_Store",
        "teacher_head/a",
        "teacher_head/a/b",
    ]
    assert findings.damaged_parts == []
    assert repair(store, findings).taken_out == []
    assert (store / "scenes/scene-0001/manifest.json").is_file()


def test_a_scene_under_another_name(store):
    shutil.move(store / "scenes/scene-0001", store / "scenes/scene-0003")
    found = {fault.path: fault.what for fault in verify(store).faults}
    assert found == {
        "scenes/scene-0001": "is gone",
        "scenes/scene-0003": "is not a scene of the store's plan",
    }


def test_a_scene_twice(tmp_path):
    store = small_store(tmp_path / "unplanned.zarr", SCENES)
    shutil.copytree(store / "scenes/scene-0001", store / "scenes/scene-0003")
    whats = {fault.what for fault in verify(store).faults}
    assert "is the manifest of scene scene-0001" in whats
    assert "has sample scene-0001-token0, which scene scene-0001 has too" in whats


def test_a_sealed_store_without_a_scene(store):
    shutil.rmtree(store / "scenes/scene-0002")
    findings = verify(store)
    assert [(fault.path, fault.what) for fault in findings.faults] == [("scenes/scene-0002", "is gone")]
    assert repair(store, findings).taken_out == ["sealed.json"]
    write_scene(StoreWriter.open(store), "scene-0002", 2)
    assert verify(store).complete


def test_unfinished_is_no_fault_and_not_all_that_is_planned(tmp_path, capsys):
    writer = StoreWriter.create(tmp_path / "s.zarr", small_spec(), planned=SCENES)
    write_scene(writer, "scene-0001", 3)
    (tmp_path / "s.zarr/.writing-scene-0002-00000000").mkdir()
    assert inspect_cache.main(["verify", str(tmp_path / "s.zarr")]) == 1
    out = capsys.readouterr().out
    assert "not everything was read; missing: scene-0002" in out
    assert "faults" not in out
    assert "unfinished, 1 planned scene" in out
    assert "1 parts of dumps" in out


def test_several_processes_find_the_same(store):
    flip(store / "scenes/scene-0001/bev_feats/c.0.0.0.0")
    flip(store / "scenes/scene-0002/query_boxes/c.0.0.0.0", offset=3)
    done = []
    findings = verify(store, jobs=2, on_bytes=lambda n, total: done.append((n, total)))
    assert findings.faults == verify(store).faults
    assert len(findings.faults) == 2
    assert done[-1][0] == done[-1][1]


def test_repair_takes_out_exactly_the_damaged_scene(store, capsys):
    flip(store / "scenes/scene-0002/query_boxes/c.0.0.0.0")
    before = TargetReader(store).read("scene-0001-token0")
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert "taken out: sealed.json, scenes/scene-0002" in capsys.readouterr().out
    assert sorted(path.name for path in store.iterdir()) == ["scenes", "teacher_head", "zarr.json"]
    writer = StoreWriter.open(store)
    assert writer.missing_scenes() == ["scene-0002"]
    np.testing.assert_equal(TargetReader(store).read("scene-0001-token0"), before)
    write_scene(writer, "scene-0002", 2)
    writer.seal()
    assert inspect_cache.main(["verify", str(store)]) == 0


def test_repair_of_the_teacher_head(store):
    flip(store / "teacher_head/decoder.weight/c.0.0")
    findings = verify(store)
    assert repair(store, findings).taken_out == ["sealed.json", "teacher_head"]
    assert not (store / "teacher_head").exists()
    assert not verify(store).faults


def test_a_damaged_root_costs_nothing_else(store):
    flip(store / "zarr.json")
    findings = verify(store)
    assert [fault.path for fault in findings.faults] == ["zarr.json"]
    assert repair(store, findings).taken_out == []
    assert findings.samples == 5


def test_a_scene_without_manifest_can_be_redone(store):
    (store / "scenes/scene-0002/manifest.json").unlink()
    repair(store, verify(store))
    write_scene(StoreWriter.open(store), "scene-0002", 2)
    assert not verify(store).faults


def test_no_store(tmp_path, capsys):
    assert inspect_cache.main(["verify", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "StoreNotFound: no store at" in captured.err
