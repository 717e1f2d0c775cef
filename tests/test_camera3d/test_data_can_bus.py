"""The CAN-bus numbers: the official walk through the messages, and the differences the network sees."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.common.utils import Quaternion, quaternion_yaw

from camera3d.data import build_index, official_can_bus, relative_can_bus
from camera3d.data.can_bus import messages_at, never_recorded
from camera3d.errors import DatasetNotFound


def pose(number: int, utime: int) -> dict:
    return {
        "accel": [number, number, number],
        "orientation": [1, 0, 0, 0],
        "pos": [0, 0, 0],
        "rotation_rate": [10 + number] * 3,
        "utime": utime,
        "vel": [20 + number] * 3,
    }


POSES = [pose(0, 100), pose(1, 200), pose(2, 300)]


@pytest.mark.parametrize(
    ("timestamp", "message"),
    [(50, 0), (99, 0), (100, 1), (150, 1), (200, 2), (250, 2), (300, 2), (1000, 2)],
    ids=[
        "before all",
        "just before",
        "at the first",
        "after it",
        "at the 2nd",
        "after it",
        "at the last",
        "late",
    ],
)
def test_numbers_come_from_the_first_message_after_the_keyframe(timestamp, message):
    """The official loop stops one message too late; after the last message it stays there."""
    (numbers,) = messages_at(POSES, np.array([timestamp]))
    assert numbers.tolist() == [message] * 3 + [10 + message] * 3 + [20 + message] * 3


def test_numbers_keep_the_order_of_the_file():
    turned = [dict(reversed(entry.items())) for entry in POSES]
    (numbers,) = messages_at(turned, np.array([150]))
    assert numbers.tolist() == [21] * 3 + [11] * 3 + [1] * 3


def test_messages_without_nine_numbers_are_refused():
    with pytest.raises(DatasetNotFound, match="hold 6 numbers"):
        messages_at(
            [{"utime": 1, "pos": [], "orientation": [], "accel": [1, 2, 3], "vel": [1, 2, 3]}], np.array([0])
        )


@pytest.mark.filterwarnings("ignore:.*not in the tables")
def test_every_frame_agrees_with_a_walk_through_the_devkits_messages(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 5, "scene-0553": 3}, can_bus=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        index = build_index(root, "v1.0-mini", "mini_train")
    assert not [w for w in caught if "CAN bus" in str(w.message)]
    devkit = NuScenesCanBus(str(root))
    for frame in index:
        reached = None
        for message in devkit.get_messages(frame.scene_name, "pose"):
            reached = message
            if message["utime"] > frame.timestamp_us:
                break
        assert frame.can_bus_present
        expected = [*reached["accel"], *reached["rotation_rate"], *reached["vel"]]
        assert frame.can_bus_messages.tolist() == expected
        assert official_can_bus(frame)[7:16].tolist() == expected


@pytest.mark.filterwarnings("ignore:.*not in the tables")
def test_without_the_expansion_there_are_zeros_and_one_warning(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2, "scene-0553": 2})
    with pytest.warns(UserWarning, match="can_bus.zip") as caught:
        index = build_index(root, "v1.0-mini", "mini_train")
    assert len([w for w in caught if "CAN bus" in str(w.message)]) == 1
    for frame in index:
        numbers = official_can_bus(frame)
        assert not frame.can_bus_present
        assert not numbers[7:16].any()
        assert numbers[:3].tolist() == frame.ego_translation.tolist()
        assert numbers[3:7].tolist() == frame.ego_rotation.tolist()


@pytest.mark.filterwarnings("ignore:.*not in the tables")
def test_scenes_without_messages_get_zeros(tiny_nuscenes):
    root = tiny_nuscenes(
        version="v1.0-trainval", scenes={"scene-0161": 2, "scene-0001": 2, "scene-0002": 2}, can_bus=True
    )
    (root / "can_bus" / "scene-0001_pose.json").unlink()
    with pytest.warns(UserWarning, match=r"no pose messages for 1 scenes \(scene-0001\)"):
        index = build_index(root, "v1.0-trainval", "train")
    present = {frame.scene_name: frame.can_bus_present for frame in index}
    # scene-0161 is on the devkit's own list of scenes without CAN bus: the file beside it does not count.
    assert present == {"scene-0161": False, "scene-0001": False, "scene-0002": True}


def test_damaged_messages_are_named(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2}, can_bus=True)
    path = root / "can_bus" / "scene-0061_pose.json"
    whole = path.read_text()
    for damage in (whole[:200], json.dumps([{"utime": 5}]), json.dumps([{"pos": 1}])):
        path.write_text(damage)
        with pytest.raises(DatasetNotFound, match=r"scene-0061_pose.json.*Download"):
            build_index(root, "v1.0-mini", "mini_train")


@pytest.fixture(scope="module")
def frames(tiny_nuscenes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_index(tiny_nuscenes(scenes={"scene-0061": 5}), "v1.0-mini", "mini_train").frames()


def test_yaw_is_the_devkits_in_both_units(frames):
    for frame in frames:
        degrees = quaternion_yaw(Quaternion(frame.ego_rotation)) / np.pi * 180
        degrees += 360 if degrees < 0 else 0
        np.testing.assert_allclose(official_can_bus(frame)[16:], [np.deg2rad(degrees), degrees], rtol=1e-12)
        assert 0 <= official_can_bus(frame)[17] < 360


def test_the_first_frame_has_not_moved(frames):
    numbers = relative_can_bus(frames[0], None)
    assert numbers[[0, 1, 2, 17]].tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(numbers[3:17], official_can_bus(frames[0])[3:17])


def test_motion_since_the_previous_frame(frames):
    numbers = relative_can_bus(frames[3], frames[2])
    step = np.array(frames[3].ego_translation) - frames[2].ego_translation
    np.testing.assert_array_equal(numbers[:3], step)
    turned = official_can_bus(frames[3])[17] - official_can_bus(frames[2])[17]
    assert numbers[17] == turned == pytest.approx(np.rad2deg(0.03 * 0.5), rel=0.02)
    np.testing.assert_array_equal(numbers[3:17], official_can_bus(frames[3])[3:17])


def test_yaw_change_through_zero_is_not_wrapped(frames):
    """As in the official code: a left turn from 359.6 to 0.4 degrees reads as -359.1."""
    changes = [relative_can_bus(b, a)[17] for a, b in pairwise(frames)]
    assert sum(abs(change) > 300 for change in changes) == 1
    np.testing.assert_allclose(np.array(changes) % 360, np.rad2deg(0.015), rtol=0.02)


def test_asking_twice_gives_the_same(frames):
    """The difference is taken on a copy: the official code changes its record in place."""
    first = relative_can_bus(frames[1], frames[0])
    np.testing.assert_array_equal(relative_can_bus(frames[1], frames[0]), first)
    assert frames[1].ego_translation[0] > 400


def test_the_scenes_without_messages_are_those_of_the_devkit(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2}, can_bus=True)
    ours = [number for number in range(10_000) if never_recorded(f"scene-{number:04d}")]
    assert ours == sorted(NuScenesCanBus(str(root)).can_blacklist)
    assert not never_recorded("my-scene-0161")
