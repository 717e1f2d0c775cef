"""The writer refuses what does not fit, says all of it, and publishes whole scenes or nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_cases import sample_list, sample_values, small_spec, small_store, write_scene

from cache_schema.errors import AlreadyPublished, CacheError, NotFinite, SampleMissing, SpecInvalid
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter


@pytest.fixture
def writer(tmp_path):
    return StoreWriter.create(tmp_path / "teacher.zarr", small_spec())


def leftovers(writer):
    """Everything in the store that is not published."""
    return [path.name for path in writer.path.iterdir() if path.name.startswith(".writing-")]


def write_samples(writer, n_listed, samples):
    """Open scene s of so many samples and append these (token, values) pairs."""
    with writer.scene("s", "t", sample_list("s", n_listed)) as scene:
        for token, values in samples:
            scene.append(token, values)


def good(*tokens):
    """(token, values) pairs that fit."""
    return [(token, sample_values(token)) for token in tokens]


def test_all_mismatches_of_a_sample_are_listed_and_a_right_one_may_follow(writer):
    samples = sample_list("s", 1)
    with writer.scene("s", "token", samples) as scene:
        values = sample_values("s-token0")
        wrong = {
            "bev_feats": values["bev_feats"].astype(np.float32),
            "query_boxes": values["query_boxes"][:, :7],
            "depth": np.zeros(3),
        }
        with pytest.raises(SpecInvalid) as caught:
            scene.append("other-token", wrong)
        text = str(caught.value)
        for words in (
            "scene s, sample other-token",
            "expected 's-token0'",
            "expected float16 (4, 6, 5); got float32 (4, 6, 5)",
            "expected float32 (2, 30, 10); got float32 (2, 7, 10)",
            "can_bus",
            "no such array",
        ):
            assert words in text
        assert len(caught.value.problems) == 5
        scene.append("s-token0", values)
    assert writer.published_scenes() == ["s"]


def test_a_list_is_no_array(writer):
    values = {**sample_values("s-token0"), "can_bus": [0.0] * 18}
    with pytest.raises(SpecInvalid, match=r"a numpy array, .*; got list"):
        write_samples(writer, 1, [("s-token0", values)])


def test_views_are_stored_as_they_look(writer):
    values = sample_values("s-token0")
    values["bev_feats"] = np.asfortranarray(values["bev_feats"])
    values["query_boxes"] = np.repeat(values["query_boxes"], 2, axis=1)[:, ::2]
    with writer.scene("s", "t", sample_list("s", 1)) as scene:
        scene.append("s-token0", values)
    assert np.array_equal(TargetReader(writer.path)["s-token0"]["bev_feats"], values["bev_feats"])
    assert np.array_equal(TargetReader(writer.path)["s-token0"]["query_boxes"], values["query_boxes"])


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["bev_feats", "query_boxes", "can_bus"])
def test_not_finite_stops_the_scene(writer, name, poison):
    values = sample_values("s-token1")
    values[name].reshape(-1)[-1] = poison
    with pytest.raises(NotFinite) as caught:
        write_samples(writer, 2, [*good("s-token0"), ("s-token1", values)])
    last = tuple(length - 1 for length in values[name].shape)
    for words in ("scene s", "sample s-token1", f"array {name}", str(last)):
        assert words in str(caught.value)
    assert writer.published_scenes() == leftovers(writer) == []


def test_largest_values_are_finite(writer):
    values = sample_values("s-token0")
    values["bev_feats"][:] = np.finfo(np.float16).max
    values["query_boxes"][:] = np.finfo(np.float32).min
    values["can_bus"][:] = np.finfo(np.float64).tiny / 2
    with writer.scene("s", "t", sample_list("s", 1)) as scene:
        scene.append("s-token0", values)


def test_incomplete_scene_is_not_published(writer):
    with pytest.raises(SampleMissing, match=r"2 of 3 samples .* s-token2"):
        write_samples(writer, 3, good("s-token0", "s-token1"))
    assert writer.published_scenes() == leftovers(writer) == []


def test_too_many_samples(writer):
    with pytest.raises(SpecInvalid, match="no more than 1"):
        write_samples(writer, 1, good("s-token0", "s-token1"))


def interrupted(samples):
    """Somebody presses Ctrl-C after these."""
    yield from samples
    raise KeyboardInterrupt


def test_exception_in_the_block_discards_the_scene(writer):
    with pytest.raises(KeyboardInterrupt):
        write_samples(writer, 2, interrupted(good("s-token0")))
    assert writer.published_scenes() == leftovers(writer) == []


@pytest.mark.parametrize(
    "name", ["../x", "/etc", "a/b", "", ".", "..", ".hidden", "a.b", "a\n", "é", "-x", "x" * 200, 7]
)
def test_scene_names_cannot_leave_the_store(writer, name):
    with pytest.raises(SpecInvalid, match="scene_name"), writer.scene(name, "t", sample_list("s", 1)):
        pytest.fail("the block must not be entered")
    assert sorted(os.listdir(writer.path)) == ["scenes", "zarr.json"]


BAD_SAMPLES = {
    "none": ([], "at least one"),
    "twice": ([("a", 1), ("b", 2), ("a", 3)], r"samples\[2\] .* no earlier sample"),
    "backwards": ([("a", 5), ("b", 4)], r"samples\[1\] .* after 5; got 4"),
    "same time": ([("a", 5), ("b", 5)], r"samples\[1\] .* after 5"),
    "blank token": ([("", 5)], r"samples\[0\] .* token"),
    "token with newline": ([("a\nb", 5)], r"samples\[0\] .* token"),
    "time in seconds": ([("a", 1.5)], r"samples\[0\] .* integer"),
}


@pytest.mark.parametrize("case", BAD_SAMPLES)
def test_bad_sample_lists_are_refused(writer, case):
    samples, message = BAD_SAMPLES[case]
    with pytest.raises(SpecInvalid, match=message), writer.scene("s", "t", samples):
        pytest.fail("the block must not be entered")


def test_published_scene_is_never_rewritten(writer):
    write_scene(writer, "s", 2)
    before = {path: path.read_bytes() for path in writer.path.rglob("*") if path.is_file()}
    with (
        pytest.raises(AlreadyPublished, match="never rewritten"),
        writer.scene("s", "t", sample_list("s", 1)),
    ):
        pytest.fail("the block must not be entered")
    assert {path: path.read_bytes() for path in writer.path.rglob("*") if path.is_file()} == before


def overtaken(writer, samples):
    """Another process publishes the same scene before these."""
    write_scene(StoreWriter.open(writer.path), "s", 1)
    yield from samples


def test_two_writers_of_one_scene_publish_one(writer):
    with pytest.raises(AlreadyPublished):
        write_samples(writer, 1, overtaken(writer, good("s-token0")))
    assert writer.published_scenes() == ["s"]
    assert leftovers(writer) == []


def test_store_is_not_created_over_anything(tmp_path):
    path = small_store(tmp_path / "teacher.zarr", {"s": 1})
    with pytest.raises(AlreadyPublished, match="is a store already"):
        StoreWriter.create(path, small_spec())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(AlreadyPublished, match=r"cat\.jpg"):
        StoreWriter.create(tmp_path / "photos", small_spec())


def test_head_is_written_once(writer):
    head = {"a.weight": np.ones((2, 2), np.float32)}
    writer.write_teacher_head(head)
    writer.write_teacher_head(head)
    with pytest.raises(AlreadyPublished, match="another teacher"):
        writer.write_teacher_head({"a.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(SpecInvalid) as caught:
        writer.write_teacher_head({"../a": np.ones(1, np.float32), "b": np.ones(1)})
    assert [problem.where for problem in caught.value.problems] == ["name", "b"]
    with pytest.raises(NotFinite, match=r"a\.weight"):
        writer.write_teacher_head({"a.weight": np.full((2, 2), np.nan, np.float32)})


KILLED_WRITER = """
import sys, time
from store_cases import sample_list, sample_values
from cache_schema.writer import StoreWriter
with StoreWriter.open(sys.argv[1]).scene("killed", "t", sample_list("killed", 3)) as scene:
    for token in ("killed-token0", "killed-token1"):
        scene.append(token, sample_values(token))
    print("in the middle", flush=True)
    time.sleep(600)
"""


def test_killed_scene_leaves_nothing_readable(tmp_path):
    path = small_store(tmp_path / "teacher.zarr", {"done": 2})
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED_WRITER, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    )
    assert child.stdout.readline() == "in the middle\n"
    child.send_signal(signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL
    child.stdout.close()
    writer = StoreWriter.open(path)
    assert len(leftovers(writer)) == 1
    assert writer.published_scenes() == ["done"]
    reader = TargetReader(path)
    assert reader.sample_tokens == ("done-token0", "done-token1")
    with pytest.raises(SampleMissing):
        reader["killed-token0"]
    write_scene(writer, "killed", 3)
    assert len(TargetReader(path)) == 5


def test_failed_write_ends_the_scene(writer, monkeypatch):
    def full(self, data):
        raise OSError("no space")

    scene_block = writer.scene("s", "t", sample_list("s", 1))
    scene = scene_block.__enter__()
    monkeypatch.setattr("cache_schema.shard_writer.ShardWriter._write", full)
    with pytest.raises(OSError, match="no space"):
        scene.append("s-token0", sample_values("s-token0"))
    monkeypatch.undo()
    with pytest.raises(CacheError, match="takes no more samples"):
        scene.append("s-token0", sample_values("s-token0"))
    with pytest.raises(SampleMissing):
        scene_block.__exit__(None, None, None)
    assert writer.published_scenes() == leftovers(writer) == []
