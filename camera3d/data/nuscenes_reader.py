"""From a dataroot to an index, through the devkit.

The devkit loads the tables; this reads them once, checks what the temporal model relies on, and keeps arrays.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from camera3d.data.annotations import Poses, annotation_columns
from camera3d.data.can_bus import CanBusMessages
from camera3d.data.devkit import check_dataroot, open_nuscenes
from camera3d.data.image_check import leaves_dataroot
from camera3d.data.index import NuScenesIndex
from camera3d.data.names import CAMERA_NAMES, CLASS_NAMES
from camera3d.data.scene_chain import MAX_GAP_S, sample_chains
from camera3d.data.split_index import SceneRows, check_scene_names, text_column
from camera3d.data.splits import check_split, fitting_splits, scene_names_of_split
from camera3d.errors import ImagesBroken, SplitMismatch, shown
from camera3d.geometry import lidar_to_image, rigid_transform


def build_index(
    dataroot: str | Path,
    version: str,
    split: str,
    *,
    scenes: Iterable[str] | None = None,
    max_gap_s: float = MAX_GAP_S,
) -> NuScenesIndex:
    """Load the devkit and index the keyframes of a split.

    Args:
        dataroot: folder with samples/, maps/, the version's folder and, if there is one, can_bus/.
        version: v1.0-trainval, v1.0-mini, v1.0-test, or any folder of tables.
        split: a split of the devkit that belongs to the version, or one from the version's splits.json.
        scenes: names to keep; all of the split by default.
        max_gap_s: the longest time between two keyframes of a scene, in seconds.

    Raises DatasetNotFound, SplitMismatch, SampleUnknown (a scene), SceneGap, or ImagesBroken (a table names a
    file outside the dataroot, or a keyframe has no image of a camera). Warns once without the CAN bus
    expansion, and once when the tables hold only a part of the split.
    """
    check_dataroot(dataroot, version)
    check_split(dataroot, version, split)
    index = index_tables(open_nuscenes(dataroot, version), split, scenes=scenes, max_gap_s=max_gap_s)
    warn_of(index)
    return index


def warn_of(index: NuScenesIndex) -> None:
    """Say what was odd when the index was built."""
    for note in index.notes:
        warnings.warn(f"nuScenes {index.version}, split {index.split}: {note}", stacklevel=3)


def index_tables(
    nusc, split: str, *, scenes: Iterable[str] | None = None, max_gap_s: float = MAX_GAP_S
) -> NuScenesIndex:
    """Index a split of a loaded devkit database. Raises as `build_index` does; its warnings become notes."""
    notes: list[str] = []
    records = _scenes_of_split(nusc, split, notes)
    if scenes is not None:
        wanted = set(scenes)
        check_scene_names(wanted, [r["name"] for r in records], f"split {split!r} of {nusc.version}")
        records = [record for record in records if record["name"] in wanted]
    chains = sample_chains(records, nusc.sample, max_gap_s)
    order = sorted(range(len(records)), key=lambda i: (chains[i][0]["timestamp"], records[i]["name"]))
    records, chains = [records[i] for i in order], [chains[i] for i in order]
    samples = [sample for chain in chains for sample in chain]

    stops = np.cumsum([len(chain) for chain in chains]).tolist()
    scene_rows = tuple(
        SceneRows(name=record["name"], token=record["token"], first=stop - len(chain), stop=stop)
        for record, chain, stop in zip(records, chains, stops, strict=True)
    )
    columns = {
        "sample_token": text_column(sample["token"] for sample in samples),
        "timestamp_us": np.array([sample["timestamp"] for sample in samples], dtype=np.int64),
    }
    sensor_columns, ego, lidar = _sensor_columns(nusc, samples)
    columns |= sensor_columns
    columns |= annotation_columns(nusc, samples, ego, lidar, CLASS_NAMES)
    columns |= _can_bus_columns(nusc.dataroot, scene_rows, columns["timestamp_us"], notes)
    return NuScenesIndex(
        version=nusc.version, split=split, scene_rows=scene_rows, columns=columns, notes=tuple(notes)
    )


def _scenes_of_split(nusc, split: str, notes: list[str]) -> list[Mapping]:
    """The scene records of the split that the tables hold, and a note about the others."""
    names = scene_names_of_split(nusc, split)
    wanted = set(names)
    present = [record for record in nusc.scene if record["name"] in wanted]
    absent = wanted - {record["name"] for record in present}
    if not present:
        fits = ", ".join(fitting_splits(nusc.dataroot, nusc.version))
        raise SplitMismatch(
            f"none of the {len(names)} scenes of split {split!r} is in {nusc.dataroot}/{nusc.version}:\n"
            f"{shown(names)}\nThe tables hold {len(nusc.scene)} other scenes. Splits that fit the version:"
            f" {fits}. Choose one of these, or unpack the metadata of these scenes."
        )
    if absent:
        notes.append(
            f"{len(absent)} of the split's {len(names)} scenes are not in the tables;"
            f" the other {len(present)} are used."
            f" Missing: {', '.join(sorted(absent)[:10])}{', ...' if len(absent) > 10 else ''}."
        )
    return present


def _sensor_columns(nusc, samples: Sequence[Mapping]) -> tuple[dict[str, np.ndarray], Poses, Poses]:
    """Image paths and sizes, `lidar2img`, the ego poses; and ego and LiDAR poses for the annotations."""
    _check_sensors(samples)
    sensors = [_SensorRecords(nusc, samples, channel) for channel in CAMERA_NAMES]
    top = _SensorRecords(nusc, samples, "LIDAR_TOP")
    _check_images(sensors, samples)
    cameras = np.stack([s.sensor_to_ego for s in sensors], axis=1)
    lidar2img = lidar_to_image(
        lidar_to_ego=top.sensor_to_ego[:, None],
        ego_to_global_at_lidar=top.ego_to_global[:, None],
        camera_to_ego=cameras,
        ego_to_global_at_camera=np.stack([s.ego_to_global for s in sensors], axis=1),
        intrinsic=np.stack([s.intrinsics() for s in sensors], axis=1),
    )
    paths = [path for row in zip(*(s.filenames for s in sensors), strict=True) for path in row]
    columns = {
        "image_paths": text_column(paths).reshape(len(samples), len(CAMERA_NAMES)),
        "image_hw": sensors[0].image_hw(),
        "lidar2img": lidar2img,
        "intrinsics": np.stack([s.intrinsics() for s in sensors], axis=1),
        "camera_to_ego": np.stack([s.sensor_pose for s in sensors], axis=1),
        "camera_ego_to_global": np.stack([s.ego_pose for s in sensors], axis=1),
        "lidar_to_ego": top.sensor_pose,
        "lidar_path": text_column(top.filenames),
        "ego_translation": top.ego_translation,
        "ego_rotation": top.ego_rotation,
    }
    ego = Poses(top.ego_rotation, top.ego_translation)
    return columns, ego, Poses(top.sensor_rotation, top.sensor_translation)


class _SensorRecords:
    """The sample_data of one channel for all keyframes, with poses as arrays."""

    def __init__(self, nusc, samples: Sequence[Mapping], channel: str):
        data = [nusc.get("sample_data", sample["data"][channel]) for sample in samples]
        poses = [nusc.get("ego_pose", record["ego_pose_token"]) for record in data]
        self._data = data
        self._calibration = [nusc.get("calibrated_sensor", r["calibrated_sensor_token"]) for r in data]
        self.filenames = [record["filename"] for record in data]
        self.ego_rotation = np.array([p["rotation"] for p in poses], dtype=np.float64).reshape(-1, 4)
        self.ego_translation = np.array([p["translation"] for p in poses], dtype=np.float64).reshape(-1, 3)
        self.sensor_rotation = np.array([c["rotation"] for c in self._calibration], dtype=np.float64)
        self.sensor_translation = np.array([c["translation"] for c in self._calibration], dtype=np.float64)
        self.ego_to_global = rigid_transform(self.ego_rotation, self.ego_translation)
        self.sensor_to_ego = rigid_transform(self.sensor_rotation, self.sensor_translation)

    @property
    def sensor_pose(self) -> np.ndarray:
        """(n, 7): x, y, z and quaternion of the sensor in the ego frame."""
        return np.concatenate((self.sensor_translation, self.sensor_rotation), axis=1)

    @property
    def ego_pose(self) -> np.ndarray:
        """(n, 7): x, y, z and quaternion of the ego in the global frame when the sensor fired."""
        return np.concatenate((self.ego_translation, self.ego_rotation), axis=1)

    def intrinsics(self) -> np.ndarray:
        return np.array([c["camera_intrinsic"] for c in self._calibration], dtype=np.float64).reshape(
            -1, 3, 3
        )

    def image_hw(self) -> np.ndarray:
        return np.array([(r["height"], r["width"]) for r in self._data], dtype=np.int64).reshape(-1, 2)


def _check_sensors(samples: Sequence[Mapping]) -> None:
    missing = [
        (f"sample {sample['token']}, {channel}", "no keyframe of this sensor in sample_data.json")
        for sample in samples
        for channel in (*CAMERA_NAMES, "LIDAR_TOP")
        if channel not in sample["data"]
    ]
    if missing:
        lines = shown(f"{where}: {why}" for where, why in missing)
        raise ImagesBroken(
            f"{len(missing)} keyframe records are missing:\n{lines}\nUnpack the metadata again.", missing
        )


def _check_images(sensors: Sequence[_SensorRecords], samples: Sequence[Mapping]) -> None:
    """Paths stay inside the dataroot; the six images of a frame have one size."""
    broken = []
    front_hw = sensors[0].image_hw()
    for sensor in sensors:
        broken += [
            (name, "the path leaves the dataroot") for name in sensor.filenames if leaves_dataroot(name)
        ]
        odd = np.flatnonzero((sensor.image_hw() != front_hw).any(axis=1))
        broken += [(sensor.filenames[i], f"not the size of CAM_FRONT, {front_hw[i].tolist()}") for i in odd]
    if broken:
        lines = shown(f"{path!r}: {why}" for path, why in broken)
        raise ImagesBroken(
            f"sample_data.json names {len(broken)} images that cannot be used:\n{lines}\nUnpack the metadata"
            " again; the tables must name files below the dataroot.",
            broken,
        )


def _can_bus_columns(
    dataroot: str | Path, scene_rows: Sequence[SceneRows], timestamps_us: np.ndarray, notes: list[str]
) -> dict[str, np.ndarray]:
    reader = CanBusMessages(dataroot)
    messages = np.zeros((len(timestamps_us), 9))
    present = np.zeros(len(timestamps_us), dtype=bool)
    for scene in scene_rows:
        rows = slice(scene.first, scene.stop)
        messages[rows], present[rows] = reader.of_scene(scene.name, timestamps_us[rows])
    notes += reader.notes()
    return {"can_bus_messages": messages, "can_bus_present": present}
