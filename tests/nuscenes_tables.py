"""A tiny nuScenes dataroot, written table by table: for tests that need the real devkit but no real data.

The vehicle drives a curve, so that its yaw passes zero; the cameras fire at other times than the LiDAR, from
other poses; some boxes have no points, one category is not a detection class, one track skips a frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

CAMERAS = {  # yaw of the viewing direction in degrees, counter-clockwise, and the delay of its shutter
    "CAM_FRONT": (0.0, -35_000),
    "CAM_FRONT_RIGHT": (-55.0, -27_000),
    "CAM_BACK_RIGHT": (-110.0, -20_000),
    "CAM_BACK": (180.0, -10_000),
    "CAM_BACK_LEFT": (110.0, -500),
    "CAM_FRONT_LEFT": (55.0, -43_000),
}
CATEGORIES = (
    "vehicle.car",
    "human.pedestrian.adult",
    "animal",
    "vehicle.bus.bendy",
    "movable_object.trafficcone",
    "vehicle.bus.rigid",
)
SIZES_WLH = (
    (1.9, 4.5, 1.6),
    (0.7, 0.7, 1.8),
    (0.4, 0.9, 0.6),
    (2.9, 17.0, 3.4),
    (0.4, 0.4, 0.9),
    (2.8, 11.0, 3.2),
)
KEYFRAME_STEP_US = 500_000
START_US = 1_532_402_927_647_951


def token(*parts: object) -> str:
    """A token like the dataset's: 32 hexadecimal digits, the same for the same parts."""
    return hashlib.md5("/".join(map(str, parts)).encode()).hexdigest()


def write_nuscenes(
    root: Path,
    *,
    version: str = "v1.0-mini",
    scenes: Mapping[str, int] | None = None,
    starts_s: Mapping[str, float] | None = None,
    image_hw: tuple[int, int] = (90, 160),
    tracks: int = 6,
    can_bus: bool = False,
    splits: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> Path:
    """Write a dataroot and return it.

    Args:
        scenes: name to number of keyframes, in the order of the scene table.
        starts_s: when a scene starts, in seconds; by default one scene after the other.
        tracks: objects a scene, each seen in every keyframe but for one gap; 0 writes no annotations.
        can_bus: whether to write the CAN bus expansion's pose messages.
        splits: contents of splits.json.
    """
    scenes = dict(scenes or {"scene-0061": 4, "scene-0553": 3, "scene-0103": 2})
    tables: dict[str, list[dict]] = {name: [] for name in ("sample", "scene", "sample_data", "ego_pose")}
    tables |= {"sample_annotation": [], "instance": []}
    tables |= _fixed_tables(image_hw)
    for number, (name, count) in enumerate(scenes.items()):
        start_s = (starts_s or {}).get(name, number * 100.0)
        stamps = [
            START_US + int(start_s * 1e6) + i * KEYFRAME_STEP_US + (i % 3) * 1_700 for i in range(count)
        ]
        _add_scene(tables, name, stamps, image_hw)
        _add_tracks(tables, name, stamps, tracks)
        if can_bus:
            write_pose_messages(root, name, stamps)
    _write_images(root, tables["sample_data"], image_hw, seed)
    table_root = root / version
    table_root.mkdir(parents=True)
    for name, records in tables.items():
        (table_root / f"{name}.json").write_text(json.dumps(records, indent=0))
    if splits is not None:
        (table_root / "splits.json").write_text(json.dumps(splits))
    (root / "maps").mkdir()
    cv2.imwrite(str(root / "maps" / "blank.png"), np.zeros((4, 4), np.uint8))
    return root


def edit_table(root: Path, table: str, change, version: str = "v1.0-mini") -> None:
    """Rewrite one table: `change(records)` works in place or returns the new list."""
    path = root / version / f"{table}.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps(change(records) or records))


def write_pose_messages(root: Path, scene: str, stamps: Sequence[int]) -> None:
    """CAN-bus poses at 50 Hz, from after the first keyframe to before the last one, as also happens."""
    folder = root / "can_bus"
    folder.mkdir(exist_ok=True)
    utimes = range(stamps[0] + 7_000, stamps[-1] - 5_000, 20_000) if len(stamps) > 1 else [stamps[0] + 7_000]
    messages = [
        {
            "accel": [i + 0.1, i + 0.2, i + 0.3],
            "orientation": [1.0, 0.0, 0.0, 0.0],
            "pos": [float(i), -float(i), 0.0],
            "rotation_rate": [i + 0.4, i + 0.5, i + 0.6],
            "utime": utime,
            "vel": [i + 0.7, i + 0.8, i + 0.9],
        }
        for i, utime in enumerate(utimes)
    ]
    (folder / f"{scene}_pose.json").write_text(json.dumps(messages))


def turn(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> list[float]:
    """The quaternion, w first, of roll about x, then pitch about y, then yaw about z, in radians."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a / 2), np.sin(a / 2)) for a in (yaw, pitch, roll))
    return [
        float(cr * cp * cy + sr * sp * sy),
        float(sr * cp * cy - cr * sp * sy),
        float(cr * sp * cy + sr * cp * sy),
        float(cr * cp * sy - sr * sp * cy),
    ]


def _ego_pose(scene: str, stamp_us: int, name: str) -> dict:
    seconds = (stamp_us - START_US) / 1e6 % 100.0
    yaw = -0.02 + 0.03 * seconds  # passes zero within the second keyframe interval
    return {
        "token": token("pose", scene, name, stamp_us),
        "timestamp": stamp_us,
        "rotation": turn(yaw, 0.013, -0.021),
        "translation": [411.3 + 5.0 * seconds, 1180.8 + 0.4 * seconds**2, 0.1 * seconds],
    }


def _fixed_tables(image_hw: tuple[int, int]) -> dict[str, list[dict]]:
    height, width = image_hw
    focal = 0.79 * width
    lidar = {"translation": [0.94, 0.0, 1.84], "rotation": [0.7077955, -0.006492, 0.010646, -0.7063073]}
    sensors = [{"token": token("sensor", "LIDAR_TOP"), "channel": "LIDAR_TOP", "modality": "lidar"}]
    calibrated = [{"token": token("calibrated", "LIDAR_TOP"), "sensor_token": sensors[0]["token"], **lidar}]
    calibrated[0]["camera_intrinsic"] = []
    for number, (channel, (degrees, _)) in enumerate(CAMERAS.items()):
        yaw = np.deg2rad(degrees)
        sensors.append({"token": token("sensor", channel), "channel": channel, "modality": "camera"})
        calibrated.append(
            {
                "token": token("calibrated", channel),
                "sensor_token": sensors[-1]["token"],
                "translation": [float(1.3 * np.cos(yaw)), float(0.6 * np.sin(yaw)), 1.5 + 0.01 * number],
                # z of a camera looks along the view, x to the right: the axes of the vehicle, turned twice.
                "rotation": turn(yaw - np.pi / 2, 0.004 * number, -np.pi / 2),
                "camera_intrinsic": [
                    [focal, 0.0, width / 2 + number],
                    [0.0, focal, height / 2 - number],
                    [0, 0, 1],
                ],
            }
        )
    levels = ("v0-40", "v40-60", "v60-80", "v80-100")
    log = {"token": token("log"), "logfile": "n015-2018-07-24-11-22-45+0800", "vehicle": "n015"}
    log |= {"date_captured": "2018-07-24", "location": "singapore-onenorth"}
    semantic_map = {"token": token("map"), "log_tokens": [log["token"]], "category": "semantic_prior"}
    return {
        "sensor": sensors,
        "calibrated_sensor": calibrated,
        "category": [{"token": token("category", n), "name": n, "description": ""} for n in CATEGORIES],
        "attribute": [{"token": token("attribute"), "name": "vehicle.moving", "description": ""}],
        "visibility": [
            {"token": str(i), "level": level, "description": ""} for i, level in enumerate(levels, start=1)
        ],
        "log": [log],
        "map": [{**semantic_map, "filename": "maps/blank.png"}],
    }


def _add_scene(tables: dict, scene: str, stamps: Sequence[int], image_hw: tuple[int, int]) -> None:
    height, width = image_hw
    names = [token("sample", scene, i) for i in range(len(stamps))]
    for i, stamp in enumerate(stamps):
        tables["sample"].append(
            {
                "token": names[i],
                "timestamp": stamp,
                "prev": names[i - 1] if i else "",
                "next": names[i + 1] if i + 1 < len(names) else "",
                "scene_token": token("scene", scene),
            }
        )
        for channel, (_, delay_us) in {"LIDAR_TOP": (0.0, 0), **CAMERAS}.items():
            pose = _ego_pose(scene, stamp + delay_us, channel)
            tables["ego_pose"].append(pose)
            ending = "pcd.bin" if channel == "LIDAR_TOP" else "jpg"
            tables["sample_data"].append(
                {
                    "token": token("data", scene, channel, i),
                    "sample_token": names[i],
                    "ego_pose_token": pose["token"],
                    "calibrated_sensor_token": token("calibrated", channel),
                    "timestamp": stamp + delay_us,
                    "fileformat": "pcd" if channel == "LIDAR_TOP" else "jpg",
                    "is_key_frame": True,
                    "height": 0 if channel == "LIDAR_TOP" else height,
                    "width": 0 if channel == "LIDAR_TOP" else width,
                    "filename": f"samples/{channel}/{scene}__{channel}__{stamp + delay_us}.{ending}",
                    "prev": "",
                    "next": "",
                }
            )
    tables["scene"].append(
        {
            "token": token("scene", scene),
            "log_token": token("log"),
            "nbr_samples": len(names),
            "first_sample_token": names[0],
            "last_sample_token": names[-1],
            "name": scene,
            "description": "made for a test",
        }
    )


def _add_tracks(tables: dict, scene: str, stamps: Sequence[int], tracks: int) -> None:
    for track in range(tracks):
        category = track % len(CATEGORIES)
        # The second track is not annotated in the second keyframe: its neighbours lie a second apart.
        frames = [i for i in range(len(stamps)) if not (track == 1 and i == 1)]
        names = [token("annotation", scene, track, i) for i in frames]
        for position, i in enumerate(frames):
            seconds = (stamps[i] - stamps[0]) / 1e6
            ego = _ego_pose(scene, stamps[i], "LIDAR_TOP")["translation"]
            distance, bearing = 9.0 + 11.0 * track, 1.1 * track
            tables["sample_annotation"].append(
                {
                    "token": names[position],
                    "sample_token": token("sample", scene, i),
                    "instance_token": token("instance", scene, track),
                    "visibility_token": "4",
                    "attribute_tokens": [],
                    "translation": [
                        ego[0] + distance * float(np.cos(bearing)) + 0.7 * track * seconds,
                        ego[1] + distance * float(np.sin(bearing)) - 0.3 * track * seconds,
                        ego[2] + 0.8 + 0.2 * seconds,
                    ],
                    "size": list(SIZES_WLH[category]),
                    "rotation": turn(1.3 * track + 0.1 * i, 0.02, 0.01),
                    "prev": names[position - 1] if position else "",
                    "next": names[position + 1] if position + 1 < len(names) else "",
                    "num_lidar_pts": 0 if track in (3, 4) else 5 + track,
                    "num_radar_pts": 1 if track == 3 else 0,
                }
            )
        if frames:
            tables["instance"].append(
                {
                    "token": token("instance", scene, track),
                    "category_token": token("category", CATEGORIES[category]),
                    "nbr_annotations": len(frames),
                    "first_annotation_token": names[0],
                    "last_annotation_token": names[-1],
                }
            )


def _write_images(root: Path, sample_data: list[dict], image_hw: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for record in sample_data:
        path = root / record["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if record["fileformat"] == "jpg":
            coarse = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
            image = cv2.resize(coarse, image_hw[::-1], interpolation=cv2.INTER_LINEAR)
            path.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
