"""Whether the CAN bus expansion was there is a part of a store, and the same in all of its scenes."""

import shutil

import numpy as np
import pytest
from dump_cases import contents

from cache_schema.reader import TargetReader
from camera3d.data import build_index, inputs_present
from camera3d.errors import InputsPartial

SCENES = {"scene-0001": 2, "scene-0002": 3}
READS = ("images", "lidar2img", "can_bus")


@pytest.fixture
def with_can_bus(tiny_nuscenes):
    return tiny_nuscenes(scenes=SCENES, image_hw=(64, 96), splits={"tiny": list(SCENES)}, can_bus=True)


def set_aside(root):
    shutil.move(root / "can_bus", root / "aside")


def put_back(root):
    shutil.move(root / "aside", root / "can_bus")


def test_the_store_says_what_was_there(peace, run_dump, with_can_bus, tmp_path):
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, data=with_can_bus) == 0
    assert TargetReader(store).spec.inputs.present == {"can_bus": True}
    assert TargetReader(peace).spec.inputs.present == {"can_bus": False}


@pytest.mark.parametrize("begun_with", [True, False])
def test_a_dump_that_has_other_inputs_is_refused(begun_with, run_dump, with_can_bus, tmp_path, capsys):
    before, after = (put_back, set_aside) if begun_with else (set_aside, put_back)
    if not begun_with:
        before(with_can_bus)
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, "--shard", "1/2", data=with_can_bus) == 0
    written = contents(store)
    after(with_can_bus)
    assert run_dump(store, "--shard", "2/2", data=with_can_bus) == 2
    err = capsys.readouterr().err
    said = {True: "expected no; store has yes", False: "expected yes; store has no"}[begun_with]
    assert f"inputs present can_bus  {said}" in err
    assert "Give this dump what that one was given" in err
    assert contents(store) == written
    before(with_can_bus)
    assert run_dump(store, "--shard", "2/2", data=with_can_bus) == 0
    assert len(TargetReader(store)) == sum(SCENES.values())


def test_inputs_of_some_scenes_only_are_refused(run_dump, with_can_bus, tmp_path, capsys):
    (with_can_bus / "can_bus" / "scene-0002_pose.json").unlink()
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, data=with_can_bus) == 2
    err = capsys.readouterr().err
    assert "InputsPartial: 1 of the 2 scenes" in err
    assert "  scene-0002\n" in err
    assert "--scenes" in err
    assert not store.exists()
    assert run_dump(store, "--scenes", "scene-0001", data=with_can_bus) == 0


@pytest.mark.filterwarnings("ignore:.*not in the tables")
def test_scenes_that_were_recorded_without_messages_do_not_count(tiny_nuscenes):
    root = tiny_nuscenes(
        version="v1.0-trainval", scenes={"scene-0161": 2, "scene-0001": 2, "scene-0002": 2}, can_bus=True
    )
    index = build_index(root, "v1.0-trainval", "train")
    assert not np.all(index.columns["can_bus_present"])
    assert inputs_present(READS, index) == {"can_bus": True}
    assert inputs_present(READS, index.select(["scene-0161"])) == {"can_bus": False}


def test_what_a_detector_does_not_read_does_not_count(with_can_bus):
    (with_can_bus / "can_bus" / "scene-0002_pose.json").unlink()
    with pytest.warns(UserWarning, match="scene-0002"):
        index = build_index(with_can_bus, "v1.0-mini", "tiny")
    assert inputs_present(("images", "lidar2img"), index) == {}
    with pytest.raises(InputsPartial, match="scene-0002"):
        inputs_present(READS, index)
