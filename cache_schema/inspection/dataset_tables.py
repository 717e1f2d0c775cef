"""What a nuScenes folder knows of a sample, without the devkit: its camera images and its annotated boxes.

`sample_data.json` and `sample_annotation.json` of the full dataset are about a gigabyte of JSON each for a
few lines that are wanted, so they are searched as text: their records are flat objects, and those that hold
the sample's token are cut out.
"""

import json
import mmap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cache_schema.errors import CacheError

# What the detection challenge calls the categories; all others are not detected.
DETECTION_NAMES = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}
_LIDAR = "LIDAR_TOP"
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class GroundTruth:
    """Annotated boxes (n, 7) in the LiDAR frame: x, y, z of the centre, l, w, h, yaw; and labels (n,).

    On a picture: (n, 4), x1, y1, x2, y2 in its pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray


class DatasetTables:
    """The tables of one version in a dataroot.

    Its methods raise CacheError when a table or a record is not there, or not as nuScenes has them.
    """

    def __init__(self, dataroot: Path, version: str) -> None:
        self.dataroot, self.version = dataroot, version
        self._tables = dataroot / version

    def check(self) -> None:
        """Nothing, when this is a nuScenes folder of that version."""
        self._asked(lambda: self._channels)

    def image_files(self, sample_token: str, cameras: Sequence[str]) -> dict[str, Path]:
        """The sample's keyframe image of each camera. All cameras without one are named in the error."""
        keyframes = self._asked(self._keyframes, sample_token)
        found = {name: self.dataroot / record["filename"] for name, record in keyframes.items()}
        missing = [camera for camera in cameras if camera not in found or not found[camera].is_file()]
        if missing:
            raise CacheError(
                f"{self.dataroot} has no image of {', '.join(missing)} for sample {sample_token}"
            )
        return {camera: found[camera] for camera in cameras}

    def ground_truth(self, sample_token: str, class_names: Sequence[str]) -> GroundTruth:
        """The boxes of these classes, with or without sensor points in them; none in a split without any."""
        return self._asked(self._ground_truth, sample_token, class_names)

    def scenes(self, sample_tokens: Collection[str]) -> dict[str, list[tuple[str, int]]]:
        """Those of these samples that the tables know, by scene name: token and time in µs, in time order."""
        return self._asked(self._scenes, sample_tokens)

    def in_lidar_frame(self, sample_token: str, boxes: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Boxes of the global frame, as annotations and results have them, as (n, 7) like `GroundTruth`."""
        return self._asked(self._in_lidar_frame, sample_token, boxes)

    def lidar2img(self, sample_token: str, cameras: Sequence[str]) -> np.ndarray:
        """(camera, 4, 4): from the LiDAR frame to pixels of the files, times their depth."""
        return self._asked(self._lidar2img, sample_token, cameras)

    def _asked(self, question: Callable[..., _Found], *arguments: object) -> _Found:
        try:
            return question(*arguments)
        except OSError as error:
            raise CacheError(
                f"{self.dataroot} is not a nuScenes folder of {self.version}: {error.filename} is missing"
                if isinstance(error, FileNotFoundError)
                else f"{error.filename} cannot be read: {error.strerror}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CacheError(f"the tables in {self._tables} are not those of nuScenes: {error!r}") from None

    def _keyframes(self, sample_token: str) -> dict[str, dict[str, Any]]:
        """The sample's records of `sample_data`, by channel."""
        channels = self._channels
        return {
            channels[record["calibrated_sensor_token"]]: record
            for record in _records_with(self._tables / "sample_data.json", sample_token)
            if record["sample_token"] == sample_token and record["is_key_frame"]
        }

    def _ground_truth(self, sample_token: str, class_names: Sequence[str]) -> GroundTruth:
        records = [
            (record, self._class_of_instance[record["instance_token"]])
            for record in _records_with(self._tables / "sample_annotation.json", sample_token)
            if record["sample_token"] == sample_token
        ]
        records = [(record, name) for record, name in records if name in class_names]
        if not records:
            return GroundTruth(np.zeros((0, 7)), np.zeros(0, np.int64))
        boxes = self._in_lidar_frame(sample_token, [record for record, _ in records])
        return GroundTruth(boxes, np.array([class_names.index(name) for _, name in records]))

    def _scenes(self, sample_tokens: Collection[str]) -> dict[str, list[tuple[str, int]]]:
        names = {token: record["name"] for token, record in self._by_token("scene").items()}
        found: dict[str, list[tuple[str, int]]] = {}
        for token, record in self._by_token("sample").items():
            if token in sample_tokens:
                found.setdefault(names[record["scene_token"]], []).append((token, record["timestamp"]))
        return {name: sorted(found[name], key=lambda sample: sample[1]) for name in sorted(found)}

    def _in_lidar_frame(self, sample_token: str, boxes: Sequence[Mapping[str, Any]]) -> np.ndarray:
        to_lidar = _inverted(self._to_global(self._keyframe(self._keyframes(sample_token), _LIDAR)))
        return np.array([_moved(box, to_lidar) for box in boxes]).reshape(-1, 7)

    def _lidar2img(self, sample_token: str, cameras: Sequence[str]) -> np.ndarray:
        keyframes = self._keyframes(sample_token)
        to_global = self._to_global(self._keyframe(keyframes, _LIDAR))
        matrices = []
        for camera in cameras:
            record = self._keyframe(keyframes, camera)
            pixels = np.eye(4)
            pixels[:3, :3] = self._calibrated[record["calibrated_sensor_token"]]["camera_intrinsic"]
            # The vehicle moves on between the LiDAR's moment and the camera's.
            matrices.append(pixels @ _inverted(self._to_global(record)) @ to_global)
        return np.array(matrices).reshape(-1, 4, 4)

    def _keyframe(self, keyframes: Mapping[str, dict[str, Any]], channel: str) -> dict[str, Any]:
        if channel not in keyframes:
            raise CacheError(f"{self._tables} has no keyframe of {channel} for a requested sample")
        return keyframes[channel]

    def _to_global(self, record: Mapping[str, Any]) -> np.ndarray:
        """(4, 4) from a sensor's frame to the global one, at the moment of a record of `sample_data`."""
        pose_token = record["ego_pose_token"]
        ego = next(_records_with(self._tables / "ego_pose.json", pose_token), None)
        if ego is None:
            raise CacheError(f"{self._tables / 'ego_pose.json'} has no pose {pose_token}")
        return _transform(ego) @ _transform(self._calibrated[record["calibrated_sensor_token"]])

    @cached_property
    def _calibrated(self) -> dict[str, dict[str, Any]]:
        return self._by_token("calibrated_sensor")

    @cached_property
    def _channels(self) -> dict[str, str]:
        """Names of the sensors by calibrated_sensor token."""
        sensors = self._by_token("sensor")
        return {
            token: sensors[record["sensor_token"]]["channel"] for token, record in self._calibrated.items()
        }

    @cached_property
    def _class_of_instance(self) -> dict[str, str | None]:
        """What an instance counts as, by its token; None when it is not a class of the challenge."""
        categories = self._by_token("category")
        return {
            token: DETECTION_NAMES.get(categories[record["category_token"]]["name"])
            for token, record in self._by_token("instance").items()
        }

    def _by_token(self, table: str) -> dict[str, dict[str, Any]]:
        records = json.loads((self._tables / f"{table}.json").read_bytes())
        return {record["token"]: record for record in records}


def _moved(box: Mapping[str, Any], transform: np.ndarray) -> np.ndarray:
    """A box as (7,); the yaw is that of yaw, pitch, roll angles, as in the official info files."""
    centre = transform[:3, :3] @ np.array(box["translation"], float) + transform[:3, 3]
    turned = transform[:3, :3] @ rotation(box["rotation"])
    width, length, height = box["size"]
    yaw = np.arctan2(-turned[0, 1], turned[0, 0])
    return np.array([*centre, length, width, height, yaw])


def _transform(record: Mapping[str, Any]) -> np.ndarray:
    """(4, 4) of a record with a rotation and a translation."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation(record["rotation"]), record["translation"]
    return matrix


def _inverted(rigid: np.ndarray) -> np.ndarray:
    inverse = np.eye(4)
    inverse[:3, :3] = rigid[:3, :3].T
    inverse[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return inverse


def rotation(quaternion: Sequence[float]) -> np.ndarray:
    """The matrix (3, 3) of a quaternion, w first."""
    w, x, y, z = np.array(quaternion, float) / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _records_with(path: Path, token: str) -> Iterator[dict[str, Any]]:
    """Every flat object of a JSON file that contains a text."""
    needle = json.dumps(token).encode()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
        place = text.find(needle)
        while place >= 0:
            start, stop = text.rfind(b"{", 0, place), text.find(b"}", place) + 1
            yield json.loads(text[start:stop])
            place = text.find(needle, stop)
