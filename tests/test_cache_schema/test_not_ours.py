"""Repair and dump never touch what no dump made: links, folders of the user, files beside ours."""

import contextlib
import os
import shutil
import subprocess

import pytest
from corruption_cases import HEAD, sealed_store
from store_cases import small_spec, write_scene

from cache_schema import files, inspect_cache
from cache_schema.errors import AlreadyPublished, CacheError
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 2, "scene-0002": 1}
MAP = "bev_feats/c.0.0.0.0"


@pytest.fixture
def store(tmp_path):
    return sealed_store(tmp_path / "teacher.zarr", SCENES)


@pytest.fixture
def unfinished(tmp_path):
    writer = StoreWriter.create(tmp_path / "unfinished.zarr", small_spec(), planned=SCENES)
    write_scene(writer, "scene-0001", 2)
    return writer


def tree(folder):
    """Everything in a folder: contents of files, targets of links."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def damage(path):
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)


def move_out_and_link(place, outside):
    """Put a folder of the store elsewhere, and a link to it where it was."""
    shutil.move(place, outside)
    place.symlink_to(outside)


@pytest.mark.parametrize("linked", ["scenes", "scenes/scene-0001", "teacher_head"])
def test_repair_does_not_follow_links(store, linked, tmp_path, capsys):
    damage(store / "scenes/scene-0001" / MAP)
    damage(store / "teacher_head/decoder.weight/c.0.0")
    move_out_and_link(store / linked, tmp_path / "outside")
    before, outside = tree(store), tree(tmp_path / "outside")
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert tree(tmp_path / "outside") == outside
    assert tree(store) == before, "a store that cannot be repaired whole keeps its seal and its parts"
    assert "is a link" in capsys.readouterr().out


def test_repair_leaves_a_folder_of_the_user_in_scenes(store, capsys):
    mine = store / "scenes" / "my-drawings"
    (mine / "deep").mkdir(parents=True)
    (mine / "deep" / "cat.png").write_bytes(b"cat")
    damage(store / "scenes/scene-0002" / MAP)
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert (mine / "deep" / "cat.png").read_bytes() == b"cat"
    assert "scenes/my-drawings" in capsys.readouterr().out
    assert not (store / "scenes/scene-0002").exists()


def test_repair_puts_files_of_the_user_aside(store, capsys):
    (store / "scenes/scene-0002/notes.txt").write_text("mine")
    damage(store / "scenes/scene-0002" / MAP)
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    (kept,) = store.rglob("notes.txt")
    assert kept.read_text() == "mine"
    assert kept.parent.name in capsys.readouterr().out
    assert [path.name for path in kept.parent.iterdir()] == ["notes.txt"], "what a dump wrote is gone"


def test_repair_of_an_unplanned_store_takes_nothing(tmp_path, capsys):
    writer = StoreWriter.create(tmp_path / "teacher.zarr", small_spec())
    write_scene(writer, "scene-0001", 1)
    damage(writer.path / "scenes/scene-0001" / MAP)
    before = tree(writer.path)
    assert inspect_cache.main(["verify", str(writer.path), "--repair"]) == 1
    assert tree(writer.path) == before
    assert "has no plan" in capsys.readouterr().out


def test_the_seal_stays_when_no_dump_could_make_another(store):
    damage(store / "scenes/scene-0002" / MAP)
    root = (store / "zarr.json").read_text()
    (store / "zarr.json").write_text(root.replace("v1.0-mini", "v1.0-main"))
    before = tree(store)
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert tree(store) == before


def test_a_dump_refuses_linked_scenes(unfinished, tmp_path):
    move_out_and_link(unfinished.path / "scenes", tmp_path / "outside")
    before = tree(tmp_path / "outside")
    with pytest.raises(CacheError, match="scenes is a link"):
        StoreWriter.open(unfinished.path)
    with pytest.raises(CacheError, match="scenes is a link"):
        write_scene(unfinished, "scene-0002", 1)
    assert tree(tmp_path / "outside") == before


def test_no_store_is_begun_in_linked_scenes(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "new.zarr").mkdir()
    (tmp_path / "new.zarr/scenes").symlink_to(tmp_path / "outside")
    with pytest.raises(CacheError, match="scenes is a link"):
        StoreWriter.create(tmp_path / "new.zarr", small_spec(), planned=SCENES)
    assert tree(tmp_path / "outside") == {}


def test_no_store_is_begun_around_things_of_the_user(tmp_path):
    (tmp_path / "new.zarr/scenes/mine").mkdir(parents=True)
    with pytest.raises(AlreadyPublished, match="scenes/mine"):
        StoreWriter.create(tmp_path / "new.zarr", small_spec(), planned=SCENES)
    (tmp_path / "file.zarr").write_text("?")
    with pytest.raises(AlreadyPublished, match="not a folder"):
        StoreWriter.create(tmp_path / "file.zarr", small_spec(), planned=SCENES)


def test_clean_up_only_removes_folders_of_dumps(unfinished, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/cat.png").write_bytes(b"cat")
    (unfinished.path / ".writing-my-novel").mkdir()
    (unfinished.path / ".writing-my-novel/chapter1").write_text("Call me")
    link = unfinished.path / ".writing-scene-0002-0badcafe-00000000"
    link.symlink_to(tmp_path / "outside")
    left = unfinished.path / ".writing-scene-0002-0badcafe-00000001"
    left.mkdir()
    (left / "bev_feats").symlink_to(tmp_path / "outside")
    write_scene(unfinished, "scene-0002", 1)
    assert unfinished.seal()
    assert (unfinished.path / ".writing-my-novel/chapter1").read_text() == "Call me"
    assert link.is_symlink()
    assert not left.exists()
    assert tree(tmp_path / "outside") == {"cat.png": b"cat"}


def make_empty(place, outside):
    place.mkdir()


def make_file(place, outside):
    place.write_text("mine")


def make_folder(place, outside):
    place.mkdir()
    (place / "zarr.json").write_text("mine")


def make_link(place, outside):
    outside.mkdir()
    (outside / "cat.png").write_text("mine")
    place.symlink_to(outside)


@pytest.mark.parametrize("make", [make_empty, make_file, make_folder, make_link])
@pytest.mark.parametrize("part", ["scenes/scene-0002", "teacher_head"])
@pytest.mark.filterwarnings("ignore:.*was no published part")
def test_what_stands_in_the_place_of_a_part_is_put_aside(unfinished, make, part, tmp_path):
    make(unfinished.path / part, tmp_path / "outside")
    unfinished.write_teacher_head(HEAD)
    write_scene(unfinished, "scene-0002", 1)
    assert unfinished.seal()
    aside = [path for path in unfinished.path.iterdir() if path.name.startswith(".aside-")]
    if make is make_empty:
        assert aside == []
    else:
        assert (aside[0] if aside[0].is_file() else next(aside[0].iterdir())).read_text() == "mine"
    assert inspect_cache.main(["verify", str(unfinished.path)]) == 0


def test_a_part_that_is_published_while_it_is_put_aside_comes_back(unfinished, monkeypatch):
    place = unfinished.path / "scenes/scene-0002"
    place.mkdir()
    (place / "zarr.json").touch()
    put_aside = files.put_aside

    def overtaken(*names):
        shutil.rmtree(place)
        shutil.copytree(unfinished.path / "scenes/scene-0001", place)
        return put_aside(*names)

    monkeypatch.setattr(files, "put_aside", overtaken)
    with pytest.raises(AlreadyPublished):
        write_scene(unfinished, "scene-0002", 1)
    assert tree(place) == tree(unfinished.path / "scenes/scene-0001")
    assert [path.name for path in unfinished.path.iterdir() if path.name.startswith(".")] == []


def test_another_file_system_is_not_touched(store):
    damage(store / "scenes/scene-0002" / MAP)
    with mounted(store / "scenes"):
        outside = tree(store / "scenes")
        assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
        with pytest.raises(CacheError, match="another file system"):
            StoreWriter.open(store)
        assert tree(store / "scenes") == outside
    assert (store / "sealed.json").exists()
    assert (store / "scenes/scene-0002/manifest.json").exists()


@contextlib.contextmanager
def mounted(place):
    """Another file system, with the same files, at a folder of the store."""
    files_there = place.parent / "copy"
    shutil.copytree(place, files_there)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        shutil.rmtree(files_there)
        pytest.skip("mounting is not allowed here")
    try:
        shutil.copytree(files_there, place, dirs_exist_ok=True)
        shutil.rmtree(files_there)
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)
