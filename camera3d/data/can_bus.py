"""The 18 CAN-bus numbers of a frame, absolute and as the network sees them.

    [0:3]  ego translation in metres        [7:16] accel, rotation_rate, vel: three numbers each
    [3:7]  ego rotation, quaternion w first [16]   ego yaw in radians, [0, 2π)
                                            [17]   the same yaw in degrees

Source: nuscenes_converter.py (_get_can_bus_info) and nuscenes_dataset.py (get_data_info, union2one) of Li et
al., ECCV 2022. Position and orientation of the CAN-bus pose are overwritten by the ego pose there, so only
the nine numbers [7:16] come from the CAN bus expansion; without the expansion they are zero.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from camera3d.data.index import Frame
from camera3d.errors import DatasetNotFound
from camera3d.geometry import Float64, heading_yaw

MESSAGE_SIZE = 9
_NOT_PASSED_ON = ("utime", "pos", "orientation")
# The devkit's own list (nuscenes/can_bus/can_bus_api.py, can_blacklist): recorded without any message.
_NEVER_RECORDED = frozenset((*range(161, 169), *range(170, 177), *range(309, 315)))


def never_recorded(scene_name: str) -> bool:
    """Whether nuScenes has no message of that scene, with or without the expansion."""
    return _numbered(scene_name) and int(scene_name[-4:]) in _NEVER_RECORDED


def _numbered(scene_name: str) -> bool:
    return scene_name[:6] == "scene-" and scene_name[6:].isdigit() and len(scene_name) == 10


def messages_at(poses: list[dict], timestamps_us: np.ndarray) -> Float64:
    """The nine message numbers (n, 9) for keyframes at `timestamps_us` (n,).

    `poses` are the scene's `pose` messages in time order, not empty. A quirk of the official loop is kept:
    it walks until a message is later than the keyframe and then reads the numbers of *that* message, the
    first one after the keyframe (the last one of all when none is later), while only the names of the
    numbers come from the message before. The names keep the file's own order: accel, rotation_rate, vel.

    Raises DatasetNotFound when the messages do not hold nine such numbers.
    """
    utimes = np.array([pose["utime"] for pose in poses], dtype=np.int64)
    later = utimes[None, :] > np.asarray(timestamps_us, dtype=np.int64)[:, None]
    stopped = np.where(later.any(axis=1), later.argmax(axis=1), len(poses) - 1)
    before = np.where(later.any(axis=1), np.maximum(stopped - 1, 0), len(poses) - 1)
    rows = []
    for name_row, value_row in zip(before, stopped, strict=True):
        keys = [key for key in poses[name_row] if key not in _NOT_PASSED_ON]
        rows.append([number for key in keys for number in poses[value_row][key]])
    if any(len(row) != MESSAGE_SIZE for row in rows):
        raise DatasetNotFound(
            f"the CAN-bus pose messages hold {len(rows[0])} numbers besides position and orientation; accel,"
            " rotation_rate and vel make 9. Download the CAN bus expansion again."
        )
    return np.array(rows, dtype=np.float64).reshape(-1, MESSAGE_SIZE)


class CanBusMessages:
    """Reads the expansion through the devkit, scene by scene, and remembers what was missing.

    Args:
        dataroot: the folder that may hold `can_bus/`.
    """

    def __init__(self, dataroot: str | Path):
        from nuscenes.can_bus.can_bus_api import NuScenesCanBus

        self.installed = (Path(dataroot) / "can_bus").is_dir()
        self._devkit = NuScenesCanBus(dataroot=str(dataroot)) if self.installed else None
        self.scenes_without: list[str] = []

    def of_scene(self, scene_name: str, timestamps_us: np.ndarray) -> tuple[Float64, bool]:
        """The nine numbers (n, 9) of a scene's keyframes, and whether the scene has messages at all."""
        poses = self._poses(scene_name)
        if not poses:
            return np.zeros((len(timestamps_us), MESSAGE_SIZE)), False
        try:
            return messages_at(poses, timestamps_us), True
        except (KeyError, TypeError, ValueError, DatasetNotFound) as error:
            path = Path(self._devkit.can_dir) / f"{scene_name}_pose.json"
            raise DatasetNotFound(
                f"{path}: not the pose messages of the CAN bus expansion ({error}). Download it again, or"
                " remove the can_bus folder to use zeros instead."
            ) from error

    def notes(self) -> list[str]:
        """What the user should be warned of: at most one sentence."""
        if not self.installed:
            return [
                "the CAN bus expansion is not in the dataroot (no can_bus folder): accel, rotation_rate and"
                " vel are zero, as in the official code. Unpack can_bus.zip into the dataroot to have them."
            ]
        if self.scenes_without:
            return [
                f"the CAN bus expansion has no pose messages for {len(self.scenes_without)} scenes"
                f" ({', '.join(self.scenes_without[:10])}): their accel, rotation_rate and vel are zero."
            ]
        return []

    def _poses(self, scene_name: str) -> list[dict]:
        if self._devkit is None:
            return []
        # The devkit asserts names like scene-0061 and raises a bare Exception for its list of scenes that are
        # known to have no messages; the official code reads zeros for all of these.
        if never_recorded(scene_name):
            return []
        known_name = _numbered(scene_name)
        try:
            poses = self._devkit.get_messages(scene_name, "pose", print_warnings=False) if known_name else []
        except FileNotFoundError:
            poses = []
        except ValueError as error:
            path = Path(self._devkit.can_dir) / f"{scene_name}_pose.json"
            raise DatasetNotFound(
                f"{path} is not JSON: {error}. Download the CAN bus expansion again."
            ) from error
        if not poses:
            self.scenes_without.append(scene_name)
        return poses


def official_can_bus(frame: Frame) -> Float64:
    """The absolute 18 numbers of a frame: global translation and yaw, before any difference is taken."""
    degrees = float(heading_yaw(frame.ego_rotation)) / np.pi * 180
    if degrees < 0:
        degrees += 360.0
    return np.concatenate(
        (
            frame.ego_translation,
            frame.ego_rotation,
            frame.can_bus_messages,
            (degrees / 180.0 * np.pi, degrees),
        )
    )


def relative_can_bus(frame: Frame, previous: Frame | None) -> Float64:
    """The 18 numbers the network sees: translation [0:3] and yaw [17] since `previous`, zero without one.

    The yaw change is the plain difference of two angles in [0, 360), not wrapped, as in the official code: a
    vehicle that turns through yaw 0 shows a change near ±360, which the rotation of the previous BEV treats
    as the same angle, while the CAN-bus MLP sees the large number it was trained with.
    """
    numbers = official_can_bus(frame)
    if previous is None:
        numbers[:3] = 0.0
        numbers[17] = 0.0
    else:
        before = official_can_bus(previous)
        numbers[:3] -= before[:3]
        numbers[17] -= before[17]
    return numbers
