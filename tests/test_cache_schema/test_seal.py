"""A store knows when it is complete; what dead processes leave behind goes away, the living keep theirs."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from store_cases import sample_list, small_spec, write_scene

from cache_schema import files
from cache_schema.errors import AlreadyPublished, Corrupt, FingerprintMismatch, SampleMissing, StoreNotFound
from cache_schema.seal import SEAL_NAME, Seal, make_index, make_seal, read_seal, remove_seal, sealed_index
from cache_schema.store_plan import StorePlan
from cache_schema.writer import StoreWriter

PLANNED = {"scene-0002": 1, "scene-0001": 3}


@pytest.fixture
def writer(tmp_path):
    return StoreWriter.create(tmp_path / "teacher.zarr", small_spec(), planned=PLANNED)


def temporary(writer):
    """Names in the store that are not published."""
    return [name for name in os.listdir(writer.path) if name.startswith(files.STAGING_PREFIX)]


def fill(writer):
    for name in writer.missing_scenes():
        write_scene(writer, name, PLANNED[name])


def test_plan_is_kept_with_the_store(writer):
    plan = StoreWriter.open(writer.path).plan
    assert plan == StorePlan.of(PLANNED)
    assert StorePlan.from_dict(plan.to_dict()) == plan
    assert plan.n_samples == PLANNED
    assert writer.missing_scenes() == ["scene-0001", "scene-0002"]
    root = writer.path / "zarr.json"
    root.write_text(root.read_text().replace('"n_samples": 3', '"n_samples": 4'))
    with pytest.raises(Corrupt, match="plan"):
        StoreWriter.open(writer.path)


def test_scenes_outside_the_plan_are_refused(writer):
    with pytest.raises(FingerprintMismatch, match="not among them: scene-0003"):
        write_scene(writer, "scene-0003", 1)
    with pytest.raises(FingerprintMismatch, match="scene-0001 with 3 samples, not 2"):
        write_scene(writer, "scene-0001", 2)


def test_seal(writer):
    write_scene(writer, "scene-0001", 3)
    with pytest.raises(SampleMissing, match="1 scene missing: scene-0002"):
        writer.seal()
    assert not writer.sealed
    with pytest.raises(StoreNotFound, match="not sealed"):
        read_seal(writer.path)
    write_scene(writer, "scene-0002", 1)
    assert writer.seal()
    assert not StoreWriter.open(writer.path).seal()
    assert writer.sealed
    seal = read_seal(writer.path)
    index = make_index(writer.path, writer.plan)
    assert Seal.from_dict(seal.to_dict()) == seal == make_seal(writer.path, index)
    assert (seal.n_scenes, seal.n_samples) == (2, 4)
    assert sealed_index(writer.path, seal).scene_names() == ["scene-0001", "scene-0002"]


def test_racing_sealers_write_the_same_and_one_of_them_did_it(writer):
    fill(writer)
    done = []
    threads = [threading.Thread(target=lambda: done.append(writer.seal())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] * 7 + [True]
    assert temporary(writer) == []


def test_seal_of_other_contents(writer):
    fill(writer)
    writer.seal()
    before = (writer.path / SEAL_NAME).read_bytes()
    manifest = writer.path / "scenes" / "scene-0002" / "manifest.json"
    manifest.write_bytes((writer.path / "scenes" / "scene-0001" / "manifest.json").read_bytes())
    with pytest.raises(Corrupt, match=r"scene-0002 of .* holds the manifest of 'scene-0001'"):
        writer.seal()
    (writer.path / SEAL_NAME).write_bytes(before.replace(b'"n_samples":4', b'"n_samples":5'))
    with pytest.raises(Corrupt, match="checksum"):
        read_seal(writer.path)
    remove_seal(writer.path)
    remove_seal(writer.path)
    assert not writer.sealed


def test_store_without_plan_is_never_sealed(tmp_path):
    writer = StoreWriter.create(tmp_path / "teacher.zarr", small_spec())
    write_scene(writer, "scene-0001", 1)
    assert writer.plan is None
    with pytest.raises(SampleMissing, match="no plan"):
        writer.seal()


def test_two_processes_create_one_store(tmp_path):
    path = tmp_path / "teacher.zarr"
    created = []

    def create():
        try:
            created.append(StoreWriter.create(path, small_spec(), planned=PLANNED))
        except AlreadyPublished:
            created.append(StoreWriter.open(path))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 8
    assert temporary(created[0]) == []


KILLED = """
import sys, time
from store_cases import sample_list
from cache_schema.writer import StoreWriter
with StoreWriter.open(sys.argv[1]).scene("scene-0001", "t", sample_list("scene-0001", 3)):
    print("in the middle", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def half_written(writer):
    """A process that stands in the middle of scene-0001, and is killed at the end."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])}
    command = [sys.executable, "-c", KILLED, str(writer.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdout.readline() == "in the middle\n"
        yield child
        child.kill()


def test_the_dead_are_told_from_the_living(writer, half_written):
    assert writer.remove_abandoned() == []
    (name,) = temporary(writer)
    half_written.send_signal(signal.SIGKILL)
    half_written.wait(30)
    assert writer.remove_abandoned() == [name]
    assert temporary(writer) == []


def test_other_machines_are_let_alone_until_the_seal(writer, half_written, monkeypatch):
    half_written.send_signal(signal.SIGKILL)
    half_written.wait(30)
    monkeypatch.setattr(files, "machine_tag", lambda: "0badcafe")
    assert writer.remove_abandoned() == []
    assert len(temporary(writer)) == 1
    fill(writer)
    writer.seal()
    assert temporary(writer) == []


def test_the_living_survive_the_seal_and_find_their_scene_published(writer):
    scene = writer.scene("scene-0001", "t", sample_list("scene-0001", 3))
    scene.__enter__()
    fill(writer)
    writer.seal()
    assert len(temporary(writer)) == 1
    with pytest.raises(SampleMissing):
        scene.__exit__(None, None, None)
    assert temporary(writer) == []


def test_a_writer_that_loses_its_folder_says_so(writer):
    """Where locks do not reach, the seal of one machine removes what another still writes."""
    scene = writer.scene("scene-0001", "t", sample_list("scene-0001", 3))
    scene.__enter__()
    (name,) = temporary(writer)
    fill(writer)
    (writer.path / name).rename(writer.path / "elsewhere")
    with pytest.raises(AlreadyPublished):
        scene.__exit__(FileNotFoundError, FileNotFoundError(2, "gone"), None)


def test_without_locks_nothing_counts_as_dead(writer, monkeypatch):
    def no_locks(descriptor, how):
        raise OSError(95, "not supported")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    leftover = writer.path / f"{files.STAGING_PREFIX}scene-0001-{files.machine_tag()}-00000000"
    leftover.mkdir()
    assert writer.remove_abandoned() == []
    fill(writer)
    assert writer.seal()
    assert temporary(writer) == [leftover.name]


def test_failed_write_names_its_file(tmp_path):
    full = pytest.importorskip("resource")
    limits = full.getrlimit(full.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    full.setrlimit(full.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            files.write_new(tmp_path / "big", b"x" * 1000)
    finally:
        full.setrlimit(full.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(tmp_path / "big")
