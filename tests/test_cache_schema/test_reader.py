"""The reader gives back what is published, from any process, and nothing else."""

import json
import multiprocessing
import pickle
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
from store_cases import sample_values, small_spec, small_store, write_scene

from cache_schema.codec import crc32c
from cache_schema.errors import (
    Corrupt,
    FingerprintMismatch,
    SampleMissing,
    SchemaTooNew,
    SpecInvalid,
    StoreNotFound,
)
from cache_schema.fields import canonical_json
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter


@pytest.fixture
def store(tmp_path):
    return small_store(tmp_path / "teacher.zarr", {"scene-0002": 1, "scene-0001": 4})


def test_what_is_in_it(store):
    reader = TargetReader(store)
    assert reader.spec == small_spec()
    assert reader.sample_tokens == (*(f"scene-0001-token{row}" for row in range(4)), "scene-0002-token0")
    assert len(reader) == 5
    assert "scene-0002-token0" in reader
    assert "elsewhere" not in reader
    assert reader.scene_of("scene-0002-token0") == "scene-0002"
    assert reader.timestamp_us("scene-0001-token1") == 1_500_000_000_500_000


def test_only_the_named_arrays(store):
    assert list(TargetReader(store).read("scene-0001-token2", names=["can_bus", "bev_feats"])) == [
        "can_bus",
        "bev_feats",
    ]
    with pytest.raises(SpecInvalid, match=r"pv_feats_0 +expected one of bev_feats, query_boxes, can_bus"):
        TargetReader(store).read("scene-0001-token2", names=["pv_feats_0", "bev_feats"])


def test_arrays_are_the_callers_own(store):
    reader = TargetReader(store)
    first = reader["scene-0001-token0"]
    for values in first.values():
        values[...] = 0
    check_sample(reader, "scene-0001-token0")


def test_unknown_token(store):
    with pytest.raises(SampleMissing) as caught:
        TargetReader(store)["ffff"]
    for words in ("ffff", "5 samples", "2 published scenes", "mini_train", "run the same dump again"):
        assert words in str(caught.value)


def test_no_store(tmp_path):
    with pytest.raises(StoreNotFound, match="no store at"):
        TargetReader(tmp_path / "nowhere.zarr")
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreNotFound, match="not a store of FocalCache"):
        TargetReader(tmp_path / "other.zarr")
    path = small_store(tmp_path / "headless.zarr", {})
    with pytest.raises(StoreNotFound, match="no teacher head"):
        TargetReader(path).read_teacher_head()
    assert TargetReader(path).sample_tokens == ()


def test_newer_schema(store):
    rewrite_spec(store, lambda raw: raw | {"schema_version": 99})
    with pytest.raises(SchemaTooNew, match="schema_version 99"):
        TargetReader(store)


def rewrite_spec(store, change):
    """Change the root's spec the way a writer would, checksum included."""
    root = json.loads((store / "zarr.json").read_text())
    root["attributes"]["focalcache"] = change(root["attributes"]["focalcache"])
    root["attributes"]["focalcache_crc32c"] = crc32c(canonical_json(root["attributes"]["focalcache"]))
    (store / "zarr.json").write_text(json.dumps(root))


def test_scene_without_manifest_is_invisible(store):
    (store / "scenes" / "scene-0002" / "manifest.json").unlink()
    reader = TargetReader(store)
    assert len(reader) == 4
    with pytest.raises(SampleMissing):
        reader["scene-0002-token0"]


def test_same_sample_in_two_scenes(store):
    shutil.copytree(store / "scenes" / "scene-0001", store / "scenes" / "scene-0003")
    with pytest.raises(Corrupt, match=r"scene-0003 .* manifest of 'scene-0001'"):
        len(TargetReader(store))


def flip(path, position):
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "value of a map": ("bev_feats/c.0.0.0.0", 5),
    "compressed value": ("query_boxes/c.0.0.0.0", 40),
    "blosc header": ("query_boxes/c.0.0.0.0", 4),
    "shard index": ("can_bus/c.0.0", -20),
    "shard index checksum": ("can_bus/c.0.0", -1),
    "manifest": ("manifest.json", 300),
    "manifest checksum": ("manifest.json", 12),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_an_error_with_a_name(store, case):
    name, position = DAMAGES[case]
    flip(store / "scenes" / "scene-0001" / name, position)
    with pytest.raises(Corrupt) as caught:
        TargetReader(store)["scene-0001-token0"]
    if name != "manifest.json":
        assert "sample scene-0001-token0, scene scene-0001, array" in str(caught.value)


def test_unverified_read_skips_only_the_values(store):
    flip(store / "scenes" / "scene-0001" / "bev_feats" / "c.0.0.0.0", 5)
    flip(store / "scenes" / "scene-0001" / "query_boxes" / "c.0.0.0.0", 40)
    reader = TargetReader(store, verify_checksums=False)
    assert not np.array_equal(
        reader.read("scene-0001-token0", ["bev_feats"])["bev_feats"],
        sample_values("scene-0001-token0")["bev_feats"],
    )
    with pytest.raises(Corrupt, match="CRC-32C"):
        reader["scene-0001-token0"]


def test_first_read_is_verified_and_later_ones_only_on_demand(store):
    path = store / "scenes" / "scene-0001" / "bev_feats" / "c.0.0.0.0"
    once, always = TargetReader(store), TargetReader(store, verify_checksums=True)
    for reader in (once, always):
        check_sample(reader, "scene-0001-token0")
    flip(path, 5)  # of the sample that was read
    flip(path, 4 * 6 * 5 * 2 + 4 + 5)  # of the next one, which was not
    assert not np.array_equal(
        once["scene-0001-token0"]["bev_feats"], sample_values("scene-0001-token0")["bev_feats"]
    )
    for _ in range(2):  # a sample that failed is not taken for verified
        with pytest.raises(Corrupt, match="scene-0001-token1, scene scene-0001, array bev_feats"):
            once["scene-0001-token1"]
    for reader in (always, pickle.loads(pickle.dumps(once))):
        with pytest.raises(Corrupt, match="scene-0001-token0, scene scene-0001, array bev_feats"):
            reader["scene-0001-token0"]


def test_each_array_is_verified_for_itself(store):
    reader = TargetReader(store)
    reader.read("scene-0001-token0", ["bev_feats"])
    flip(store / "scenes" / "scene-0001" / "can_bus" / "c.0.0", 5)
    with pytest.raises(Corrupt, match="array can_bus"):
        reader["scene-0001-token0"]


def test_verify_checksums_is_one_of_three(store):
    with pytest.raises(SpecInvalid, match=r"verify_checksums +expected True, False or"):
        TargetReader(store, verify_checksums="always")


@pytest.mark.parametrize("change", ["short", "gone"])
def test_missing_bytes(store, change):
    path = store / "scenes" / "scene-0001" / "bev_feats" / "c.0.0.0.0"
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=r"gone|bytes"):
        TargetReader(store)["scene-0001-token0"]


def test_damaged_spec_and_head(store):
    writer = StoreWriter.open(store)
    writer.write_teacher_head({"a.weight": np.ones((2, 2), np.float32)})
    flip(store / "teacher_head" / "a.weight" / "c.0.0", 3)
    with pytest.raises(Corrupt, match=r"a\.weight"):
        TargetReader(store).read_teacher_head()
    text = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(text.replace("v1.0-mini", "v1.0-main"))
    with pytest.raises(Corrupt, match="checksum"):
        TargetReader(store)


def test_pickle_is_small_and_reads(store):
    reader = TargetReader(store)
    check_sample(reader, "scene-0001-token3")
    pickled = pickle.dumps(reader)
    assert len(pickled) < 500
    check_sample(pickle.loads(pickled), "scene-0001-token3")
    assert pickle.loads(pickle.dumps(TargetReader(store, verify_checksums=False))).verify_checksums is False


def check_sample(reader, token):
    """The sample reads as it was written; returns True so that workers have something to send back."""
    for name, values in sample_values(token).items():
        np.testing.assert_array_equal(reader[token][name], values)
    return True


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_share_a_reader_that_was_used_before(store, method):
    reader = TargetReader(store)
    tokens = reader.sample_tokens
    check_sample(reader, tokens[0])
    with multiprocessing.get_context(method).Pool(2) as pool:
        jobs = pool.starmap_async(check_sample, [(reader, token) for token in tuple(tokens) * 3])
        assert all(jobs.get(timeout=60))


def test_forked_worker_uses_the_inherited_reader(store):
    reader = TargetReader(store)
    check_sample(reader, "scene-0001-token0")
    child = multiprocessing.get_context("fork").Process(
        target=check_sample, args=(reader, "scene-0001-token1")
    )
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_forked_workers_share_what_one_of_them_tested(store):
    reader, started_anew = TargetReader(store), TargetReader(store)
    token = reader.sample_tokens[0]
    child = multiprocessing.get_context("fork").Process(target=check_sample, args=(reader, token))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    flip(store / "scenes" / "scene-0001" / "bev_feats" / "c.0.0.0.0", 5)
    assert not np.array_equal(reader[token]["bev_feats"], sample_values(token)["bev_feats"])
    with pytest.raises(Corrupt, match="array bev_feats"):
        started_anew[token]


def test_threads_share_a_reader(store, monkeypatch):
    monkeypatch.setattr("cache_schema.reader._OPEN_SHARDS", 2)
    reader = TargetReader(store)
    passed = []
    threads = [
        threading.Thread(
            target=lambda: passed.extend(check_sample(reader, t) for t in tuple(reader.sample_tokens) * 5)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(passed) == 4 * 5 * 5


def test_open_files_do_not_pile_up(tmp_path, monkeypatch):
    monkeypatch.setattr("cache_schema.reader._OPEN_SHARDS", 4)
    path = small_store(tmp_path / "teacher.zarr", {})
    writer = StoreWriter.open(path)
    tokens = [token for number in range(12) for token in write_scene(writer, f"s{number}", 1)]
    reader = TargetReader(path)
    for token in tokens:
        check_sample(reader, token)
    with open("/proc/self/maps") as maps:
        assert sum(str(path) in line for line in maps) <= 4


def test_what_is_expected_is_checked_at_open(store):
    expect = {"outputs": {"class_names": ["car", "truck"]}, "dataset": {"split": "mini_train"}}
    reader = TargetReader(store, expect=expect)
    assert pickle.loads(pickle.dumps(reader)).expect == expect
    assert TargetReader(store, expect=small_spec()).spec == small_spec()
    expect["outputs"]["class_names"] = ["truck", "car"]
    expect["numerics"] = {"threads": 8}
    with pytest.raises(FingerprintMismatch) as caught:
        TargetReader(store, expect=expect)
    for words in (str(store), "class order  expected truck, car; store has car, truck", "Dump again"):
        assert words in str(caught.value)
    assert [problem.where for problem in caught.value.problems] == ["class order", "threads"]


@pytest.fixture
def other_dump(tmp_path):
    """A writer of a store like the others, made with another number of threads."""
    spec = small_spec()
    return StoreWriter.create(
        tmp_path / "threads.zarr", replace(spec, numerics=replace(spec.numerics, threads=2))
    )


def test_scene_of_another_dump_is_not_read(store, other_dump):
    write_scene(other_dump, "scene-0009", 1)
    shutil.copytree(other_dump.path / "scenes" / "scene-0009", store / "scenes" / "scene-0009")
    with pytest.raises(FingerprintMismatch, match=r"scene-0009 .* another dump"):
        len(TargetReader(store))


def test_teacher_head_of_another_dump_is_not_read(store, other_dump):
    other_dump.write_teacher_head({"a.weight": np.ones((2, 2), np.float32)})
    assert TargetReader(other_dump.path).read_teacher_head()["a.weight"].tolist() == [[1, 1], [1, 1]]
    shutil.copytree(other_dump.path / "teacher_head", store / "teacher_head")
    with pytest.raises(FingerprintMismatch, match=r"teacher_head .* another dump"):
        TargetReader(store).read_teacher_head()
    assert [fault.path for fault in verify(store).faults] == ["teacher_head/manifest.json"]
