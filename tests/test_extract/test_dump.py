"""The command, in this process: finished, resumed, shared and refused dumps, all with the same bytes."""

import os
import shutil
import signal

import numpy as np
import pytest
import torch
from dump_cases import SCENES, TEACHER, contents, temporary

from cache_schema.errors import AlreadyPublished
from cache_schema.reader import TargetReader
from cache_schema.seal import read_seal
from cache_schema.wording import counted
from cache_schema.writer import StoreWriter
from camera3d.data import ImagePipeline, StreamingFrames, load_or_build_index
from camera3d.detectors.builder import load_config
from camera3d.fixed_numerics import DEFAULT_THREADS, fixed_numerics
from extract import engine
from extract.run import DumpOptions, load_teacher


def test_the_store_holds_what_the_teacher_saw(peace, dataroot):
    config = load_config(TEACHER)
    index = load_or_build_index(dataroot, "v1.0-mini", "tiny").select(["scene-0002"])
    reader = TargetReader(peace)
    assert len(reader) == sum(SCENES.values()) == read_seal(peace).n_samples
    detector, _ = load_teacher(DumpOptions(config="", dataroot="", version="", split="", out=""), config)
    state = None
    with fixed_numerics(1), torch.inference_mode():
        for item in StreamingFrames(index, ImagePipeline.from_config(config.inputs), dataroot):
            outputs, state = detector.encode({name: item[name][None] for name in detector.inputs}, state)
            stored = reader[item["sample_token"]]
            for name, values in outputs.items():
                np.testing.assert_array_equal(stored[name], values[0].numpy().astype(stored[name].dtype))
            (found,) = detector.decode(outputs)
            np.testing.assert_array_equal(stored["detection_boxes"], found.boxes.numpy())
            np.testing.assert_array_equal(stored["detection_scores"], found.scores.numpy())
            np.testing.assert_array_equal(stored["detection_labels"], found.labels.numpy())


def test_finished_dump_says_so_and_changes_nothing(peace, run_dump, capsys):
    before = contents(peace)
    assert run_dump(peace) == 0
    assert "is complete: nothing to do; scenes in it: 6" in capsys.readouterr().out
    assert contents(peace) == before


def test_only_results_go_to_stdout(run_dump, tmp_path, capsys):
    assert run_dump(tmp_path / "teacher.zarr", "--scenes", "scene-0001") == 0
    out, err = capsys.readouterr()
    assert out.startswith("array ")
    assert "scene-0001" in err
    assert "INFO" not in out + err


@pytest.mark.parametrize("count", [2, 3])
def test_shards_make_the_same_store(count, peace, run_dump, tmp_path, monkeypatch, capsys):
    store = tmp_path / "teacher.zarr"
    for rank in (1, 0, 2)[:count]:
        capsys.readouterr()
        if count == 2:
            monkeypatch.setenv("WORLD_SIZE", "2")
            monkeypatch.setenv("RANK", str(rank))
            assert run_dump(store, "--workers", "1") == 0
        else:
            assert run_dump(store, "--shard", f"{rank + 1}/3") == 0
        missing = StoreWriter.open(store).missing_scenes()
        assert StoreWriter.open(store).sealed == (not missing)
        out = capsys.readouterr().out
        if missing:
            assert f"part {rank + 1}/{count}" in out
            assert f"{counted(len(missing), 'scene')} of other parts missing" in out
        else:
            assert "FPS" in out
    assert contents(store) == contents(peace)


def test_threads_do_not_come_from_the_environment(run_dump, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, "--scenes", "scene-0001", threads=()) == 0
    assert TargetReader(store).spec.numerics.threads == DEFAULT_THREADS
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


REFUSED = {
    "another seed": (("--seed", "1"), ("random seed", "another dump")),
    "other arrays": (("--arrays", "bev"), ("arrays",)),
    "other threads": (("--threads", "2"), ("threads",)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_dump_is_refused_by_name(case, peace, run_dump, capsys):
    options, words = REFUSED[case]
    before = contents(peace)
    assert run_dump(peace, *options) == 2
    err = capsys.readouterr().err
    assert "FingerprintMismatch" in err
    for word in words:
        assert word in err
    assert contents(peace) == before


def test_scenes_that_were_not_planned_are_refused(run_dump, tmp_path, capsys):
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, "--scenes", "scene-0001", "scene-0004") == 0
    assert run_dump(store, "--scenes", "scene-0004", "scene-0005") == 2
    assert "not among them: scene-0005" in capsys.readouterr().err
    assert run_dump(store, "--scenes", "scene-0004") == 0


def after_frames(monkeypatch, n_frames, action):
    """Call `action(token, outputs)` once, when the teacher has seen so many frames."""
    run_scene = engine.run_scene
    seen = []

    def watched(*args):
        for item, outputs in run_scene(*args):
            seen.append(item["sample_token"])
            if len(seen) == n_frames:
                action(seen[-1], outputs)
            yield item, outputs

    monkeypatch.setattr(engine, "run_scene", watched)


@pytest.mark.parametrize(
    ("number", "workers"), [(signal.SIGINT, "0"), (signal.SIGTERM, "0"), (signal.SIGTERM, "1")]
)
def test_signal_leaves_a_store_that_can_be_resumed(
    number, workers, peace, run_dump, tmp_path, monkeypatch, capsys
):
    store = tmp_path / "teacher.zarr"
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        after_frames(patch, 5, lambda token, tensors: os.kill(os.getpid(), number))
        assert run_dump(store, "--workers", workers) == 130
    assert signal.getsignal(number) == before
    err = capsys.readouterr().err
    assert f"stopped ({number.name})" in err
    assert "Resume with:  python extract/dump_teacher.py" in err
    assert "Traceback" not in err
    assert temporary(store) == []
    assert StoreWriter.open(store).published_scenes() == ["scene-0001"]
    assert run_dump(store) == 0
    assert contents(store) == contents(peace)


def test_not_finite_names_scene_sample_and_array(run_dump, peace, tmp_path, monkeypatch, capsys):
    store = tmp_path / "teacher.zarr"

    def poison(token, tensors):
        tensors["bev_feats"] = tensors["bev_feats"] * float("nan")

    with monkeypatch.context() as patch:
        after_frames(patch, 4, poison)
        assert run_dump(store) == 2
    token = TargetReader(peace).scenes["scene-0002"][1]
    assert f"NotFinite: scene scene-0002, sample {token}, array bev_feats" in capsys.readouterr().err
    assert temporary(store) == []


@pytest.mark.parametrize("workers", ["0", "1"])
def test_image_that_breaks_while_the_dump_runs(
    workers, peace, dataroot, run_dump, tmp_path, monkeypatch, capsys
):
    data = shutil.copytree(dataroot, tmp_path / "data")
    image = sorted((data / "samples" / "CAM_BACK").glob("scene-0003*"))[1]
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    store = tmp_path / "teacher.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("extract.run.check_images", lambda *args, **options: 0)
        assert run_dump(store, "--workers", workers, data=data) == 2
    err = capsys.readouterr().err
    assert "ImagesBroken: image files" in err
    assert image.name in err
    assert "Traceback" not in err
    assert "DataLoader worker" not in err
    assert temporary(store) == []
    image.write_bytes(whole)
    assert run_dump(store, data=data) == 0
    assert contents(store) == contents(peace)


def test_what_stands_in_the_place_of_a_scene_is_put_aside(peace, run_dump, tmp_path, capsys):
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, "--shard", "1/6") == 0
    missing = StoreWriter.open(store).missing_scenes()
    (store / "scenes" / missing[0]).mkdir()
    (store / "scenes" / missing[0] / "notes.txt").write_text("mine")
    (store / "scenes" / missing[1]).write_text("mine")
    capsys.readouterr()
    assert run_dump(store) == 0
    assert "warning: " in capsys.readouterr().err
    found = contents(store)
    aside = {name: found.pop(name) for name in list(found) if name.startswith(".aside-")}
    assert found == contents(peace)
    assert set(aside.values()) == {b"mine"}
    assert len(aside) == 2


def test_a_scene_that_stays_unpublished_is_named(run_dump, tmp_path, monkeypatch, capsys):
    scene = StoreWriter.scene

    def never(self, scene_name, *args):
        if scene_name == "scene-0002":
            raise AlreadyPublished("by somebody")
        return scene(self, scene_name, *args)

    monkeypatch.setattr(StoreWriter, "scene", never)
    assert run_dump(tmp_path / "teacher.zarr") == 2
    assert "still lacks scene-0002" in capsys.readouterr().err
    assert not StoreWriter.open(tmp_path / "teacher.zarr").sealed
