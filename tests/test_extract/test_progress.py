"""The bar of a dump counts what every process does, and never a sample twice."""

from __future__ import annotations

import re

import pytest
from store_cases import sample_list, small_spec, write_scene

from cache_schema.writer import StoreWriter
from extract import progress
from extract.progress import StoreProgress

PLANNED = {"scene-1": 3, "scene-2": 2, "scene-3": 4}


@pytest.fixture
def writer(tmp_path):
    return StoreWriter.create(tmp_path / "teacher.zarr", small_spec(), planned=PLANNED)


def other_process(writer: StoreWriter, scene: str) -> None:
    write_scene(StoreWriter.open(writer.path), scene, PLANNED[scene])


def test_scenes_of_others_are_counted_when_they_are_published(writer, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.0)
    other_process(writer, "scene-1")
    with StoreProgress(writer, {"scene-3": 4}, shown=True) as shown:
        assert (shown.bar.n, shown.bar.total) == (3, 9)
        shown.begin("scene-3")
        shown.sample("scene-3")
        assert shown.bar.n == 4
        other_process(writer, "scene-2")
        shown.sample("scene-3")
        assert shown.bar.n == 3 + 2 + 2
        write_scene(writer, "scene-3", 4)
        shown.sample("scene-3")
        assert shown.bar.n == 9


def test_a_scene_that_another_process_also_wrote_counts_once(writer, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LOOKS", 0.0)
    with StoreProgress(writer, PLANNED, shown=True) as shown:
        shown.sample("scene-1")
        other_process(writer, "scene-1")
        shown.sample("scene-1")
        assert shown.bar.n == 3


def test_the_store_is_not_asked_at_every_sample(writer, monkeypatch):
    looks = []
    real = StoreWriter.published_scenes
    monkeypatch.setattr(StoreWriter, "published_scenes", lambda self: looks.append(1) or real(self))
    with StoreProgress(writer, PLANNED, shown=True) as shown:
        for _ in range(3):
            shown.sample("scene-1")
        assert len(looks) == 1


def test_a_quiet_process_never_asks(writer, monkeypatch, capsys):
    monkeypatch.setattr(StoreWriter, "published_scenes", lambda self: pytest.fail("asked"))
    with StoreProgress(writer, PLANNED, shown=False) as quiet:
        quiet.sample("scene-1")
    assert capsys.readouterr().err == ""


def test_a_store_without_a_plan_counts_its_own_scenes(tmp_path):
    writer = StoreWriter.create(tmp_path / "teacher.zarr", small_spec())
    own = {"scene-1": len(sample_list("scene-1", 3))}
    with StoreProgress(writer, own, shown=True) as shown:
        shown.sample("scene-1")
        assert (shown.bar.n, shown.bar.total) == (1, 3)


def test_a_dump_that_goes_on_begins_where_the_store_is(run_dump, tmp_path, capsys):
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, "--shard", "1/2") == 0
    first = re.findall(r"dump: .*?(\d+)/(\d+) \[", capsys.readouterr().err)
    assert run_dump(store, "--shard", "2/2") == 0
    second = re.findall(r"dump: .*?(\d+)/(\d+) \[", capsys.readouterr().err)
    assert first[0][0] == "0"
    assert first[-1] == second[0]
    assert second[-1][0] == second[-1][1] == first[0][1]
