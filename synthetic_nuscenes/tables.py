"""nuScenes' tables of a synthetic dataset, from the facts of its keyframes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from synthetic_nuscenes.actors import Actor
from synthetic_nuscenes.categories import CATEGORIES
from synthetic_nuscenes.frames import KeyframeFacts, file_name, seconds_of, stamp_us, sweep_stamp_us
from synthetic_nuscenes.options import TRAIN_SPLIT, VAL_SPLIT, SyntheticOptions, scene_name
from synthetic_nuscenes.rig import CAMERAS, LIDAR, LIDAR_NAME
from synthetic_nuscenes.world import World

ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
# Level i + 1 begins at this visible share.
VISIBILITY_FROM = (0.0, 0.4, 0.6, 0.8)
VISIBILITY_LEVELS = ("v0-40", "v40-60", "v60-80", "v80-100")
MOVING_MPS = 0.2

Table = list[dict[str, object]]


class Tables:
    """Collects the records; `records` is table name to list of records."""

    def __init__(self, options: SyntheticOptions):
        self._options = options
        self.records: dict[str, Table] = {
            name: []
            for name in (
                "log",
                "map",
                "scene",
                "sample",
                "sample_data",
                "ego_pose",
                "instance",
                "sample_annotation",
            )
        }
        self.records |= _fixed_tables(options)

    def splits(self) -> dict[str, list[str]]:
        """The contents of splits.json: the last scenes are the val split."""
        names = [scene_name(i) for i in range(self._options.scenes)]
        at = self._options.scenes - self._options.val_scenes
        return {TRAIN_SPLIT: names[:at], VAL_SPLIT: names[at:]}

    def add_scene(self, number: int, world: World, facts: Sequence[KeyframeFacts]) -> None:
        """One scene with its keyframes in time order."""
        samples = [token("sample", number, i) for i in range(len(facts))]
        log = token("log", number)
        self.records["log"].append(
            {
                "token": log,
                "logfile": f"synthetic-{number:04d}",
                "vehicle": "synthetic",
                "date_captured": "2020-09-13",
                "location": f"synthetic-{number:04d}",
            }
        )
        self.records["map"].append(
            {
                "token": token("map", number),
                "log_tokens": [log],
                "category": "semantic_prior",
                "filename": map_name(number),
            }
        )
        self.records["scene"].append(
            {
                "token": token("scene", number),
                "log_token": log,
                "nbr_samples": len(samples),
                "first_sample_token": samples[0],
                "last_sample_token": samples[-1],
                "name": scene_name(number),
                "description": "generated street",
            }
        )
        for i, sample in enumerate(samples):
            self.records["sample"].append(
                {
                    "token": sample,
                    "timestamp": sweep_stamp_us(number, i),
                    **_links(samples, i),
                    "scene_token": token("scene", number),
                }
            )
        self._add_sensor_data(number, world, samples)
        self._add_tracks(number, world, facts, samples)

    def _add_sensor_data(self, number: int, world: World, samples: Sequence[str]) -> None:
        height, width = self._options.image_hw
        for channel in (*CAMERAS, LIDAR_NAME):
            camera = channel in CAMERAS
            chain = [token("sample_data", number, channel, i) for i in range(len(samples))]
            for i, sample in enumerate(samples):
                stamp = stamp_us(number, i, channel)
                x, y, yaw = world.ego_pose(seconds_of(number, stamp))
                # As in nuScenes, a sample_data and its ego pose share their token.
                self.records["ego_pose"].append(
                    {
                        "token": chain[i],
                        "timestamp": stamp,
                        "rotation": quaternion(yaw),
                        "translation": [x, y, 0.0],
                    }
                )
                self.records["sample_data"].append(
                    {
                        "token": chain[i],
                        "sample_token": sample,
                        "ego_pose_token": chain[i],
                        "calibrated_sensor_token": token("calibrated_sensor", channel),
                        "timestamp": stamp,
                        "fileformat": "jpg" if camera else "pcd",
                        "is_key_frame": True,
                        "height": height if camera else 0,
                        "width": width if camera else 0,
                        "filename": file_name(number, i, channel),
                        **_links(chain, i),
                    }
                )

    def _add_tracks(
        self, number: int, world: World, facts: Sequence[KeyframeFacts], samples: Sequence[str]
    ) -> None:
        """Annotations of every actor that a sensor notices, from the first such keyframe to the last."""
        found: dict[int, list[tuple[int, int]]] = {}
        for i, fact in enumerate(facts):
            for row, one in enumerate(fact.actors.tolist()):
                found.setdefault(one, []).append((i, row))
        for one in sorted(found):
            seen = [bool(facts[i].points[row] or facts[i].shown[row]) for i, row in found[one]]
            places = found[one][noticed_span(seen)]
            if not places:
                continue
            actor = world.actors[one]
            chain = [token("annotation", number, one, i) for i, _ in places]
            for at, (i, row) in enumerate(places):
                fact = facts[i]
                self.records["sample_annotation"].append(
                    {
                        "token": chain[at],
                        "sample_token": samples[i],
                        "instance_token": token("instance", number, one),
                        "visibility_token": visibility(int(fact.shown[row]), int(fact.alone[row])),
                        "attribute_tokens": [
                            token("attribute", a) for a in attributes(actor, fact.speed[row])
                        ],
                        "translation": [round(float(v), 3) for v in fact.centre[row]],
                        "size": [float(v) for v in actor.size_wlh],
                        "rotation": quaternion(float(fact.yaw[row])),
                        **_links(chain, at),
                        "num_lidar_pts": int(fact.points[row]),
                        "num_radar_pts": 0,
                    }
                )
            self.records["instance"].append(
                {
                    "token": token("instance", number, one),
                    "category_token": token("category", actor.category),
                    "nbr_annotations": len(chain),
                    "first_annotation_token": chain[0],
                    "last_annotation_token": chain[-1],
                }
            )


def token(*parts: object) -> str:
    """32 hexadecimal digits, the same for the same parts."""
    return hashlib.md5("/".join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def map_name(scene: int) -> str:
    """Where the map of a scene lies below the dataroot."""
    return f"maps/{scene_name(scene)}.png"


def quaternion(yaw_rad: float) -> list[float]:
    """The rotation about the vertical, w first."""
    return [float(np.cos(yaw_rad / 2)), 0.0, 0.0, float(np.sin(yaw_rad / 2))]


def visibility(shown: int, alone: int) -> str:
    """The token of the visible share: "1" to "4"; "1" too for what no camera has in view."""
    share = shown / alone if alone else 0.0
    return str(int(np.searchsorted(VISIBILITY_FROM, share, side="right")))


def noticed_span(seen: Sequence[bool]) -> slice:
    """From the first to the last keyframe that sees a thing: nobody annotates what has not yet appeared.

    Hidden keyframes in between stay, as those that an annotator fills in: they have no points.
    """
    positions = [i for i, noticed in enumerate(seen) if noticed]
    return slice(positions[0], positions[-1] + 1) if positions else slice(0, 0)


def attributes(actor: Actor, speed_mps: float) -> list[str]:
    """The attribute of an annotation: one name, or none for barriers and cones."""
    kind = CATEGORIES[actor.category].attributes
    moving = speed_mps > MOVING_MPS
    if kind == "vehicle":
        return ["vehicle.moving" if moving else "vehicle.parked" if actor.parked else "vehicle.stopped"]
    if kind == "cycle":
        return ["cycle.with_rider" if actor.rider else "cycle.without_rider"]
    if kind == "pedestrian":
        still = "pedestrian.sitting_lying_down" if actor.sitting else "pedestrian.standing"
        return ["pedestrian.moving" if moving else still]
    return []


def _links(chain: Sequence[str], at: int) -> dict[str, str]:
    return {"prev": chain[at - 1] if at else "", "next": chain[at + 1] if at + 1 < len(chain) else ""}


def _fixed_tables(options: SyntheticOptions) -> dict[str, Table]:
    sensor = [
        {
            "token": token("sensor", name),
            "channel": name,
            "modality": "lidar" if name == LIDAR_NAME else "camera",
        }
        for name in (*CAMERAS, LIDAR_NAME)
    ]
    calibrated = [
        {
            "token": token("calibrated_sensor", name),
            "sensor_token": token("sensor", name),
            "translation": list(mount.translation),
            "rotation": mount.unit_rotation.tolist(),
            "camera_intrinsic": mount.intrinsic(options.image_hw).tolist() if name in CAMERAS else [],
        }
        for name, mount in {**CAMERAS, LIDAR_NAME: LIDAR}.items()
    ]
    return {
        "sensor": sensor,
        "calibrated_sensor": calibrated,
        "category": [{"token": token("category", n), "name": n, "description": ""} for n in CATEGORIES],
        "attribute": [{"token": token("attribute", n), "name": n, "description": ""} for n in ATTRIBUTES],
        "visibility": [
            {"token": str(i), "level": level, "description": ""}
            for i, level in enumerate(VISIBILITY_LEVELS, start=1)
        ],
    }
