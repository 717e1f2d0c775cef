"""One keyframe: its files, and the facts that the tables need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from synthetic_nuscenes.camera import photograph
from synthetic_nuscenes.lidar import scan
from synthetic_nuscenes.look import make_look
from synthetic_nuscenes.options import KEYFRAMES_A_SECOND, SyntheticOptions, scene_name
from synthetic_nuscenes.rig import CAMERAS, LIDAR_NAME
from synthetic_nuscenes.scenes import make_world
from synthetic_nuscenes.world import World

JPEG_QUALITY = 92
ANNOTATED_M = 75.0
LEAST_PIXELS = 16  # of an actor that a picture shows
FIRST_STAMP_US = 1_600_000_000_000_000
SCENE_STEP_US = 1_000_000_000  # scenes start this far apart: longer than any scene
SPEED_STEP_S = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyframeFacts:
    """The annotated actors of a keyframe, n of them: the positions in the world's `actors` and

    centre (n, 3) metres and yaw (n,) radians in the global frame, speed (n,) m/s, points (n,) LiDAR points,
    shown (n,) pixels of all cameras that show the actor, alone (n,) pixels that would if nothing hid it.
    visible: by camera, see `visible_boxes`.
    """

    scene: int
    number: int
    actors: np.ndarray
    centre: np.ndarray
    yaw: np.ndarray
    speed: np.ndarray
    points: np.ndarray
    shown: np.ndarray
    alone: np.ndarray
    visible: tuple[np.ndarray, ...]


def sweep_stamp_us(scene: int, number: int) -> int:
    """When the LiDAR fires in keyframe `number` of a scene, in microseconds."""
    return FIRST_STAMP_US + scene * SCENE_STEP_US + number * (1_000_000 // KEYFRAMES_A_SECOND)


def stamp_us(scene: int, number: int, channel: str) -> int:
    """When a sensor fires: the cameras a little before the LiDAR."""
    delay_us = CAMERAS[channel].delay_us if channel in CAMERAS else 0
    return sweep_stamp_us(scene, number) + delay_us


def seconds_of(scene: int, time_us: int) -> float:
    """Seconds since the scene's first sweep."""
    return (time_us - sweep_stamp_us(scene, 0)) / 1e6


def file_name(scene: int, number: int, channel: str) -> str:
    """Where the file of a sensor lies below the dataroot."""
    ending = "pcd.bin" if channel == LIDAR_NAME else "jpg"
    stamp = stamp_us(scene, number, channel)
    return f"samples/{channel}/{scene_name(scene)}__{channel}__{stamp}.{ending}"


def write_keyframe(root: Path, options: SyntheticOptions, scene: int, number: int) -> KeyframeFacts:
    """Render the six images and the sweep of a keyframe below `root`; the folders exist already."""
    world = make_world(options, scene)
    look = make_look(world)
    shown, alone = np.zeros((2, len(world.actors)), dtype=np.int64)
    visible, named = [], np.array([bool(one.category) for one in world.actors])
    for i, channel in enumerate(CAMERAS):
        time_s = seconds_of(scene, stamp_us(scene, number, channel))
        seed = (options.seed, scene, number, i)
        photo = photograph(world, look, channel, time_s, options.image_hw, seed)
        _write_jpeg(root / file_name(scene, number, channel), photo.bgr)
        shown[photo.hits.owners] += photo.hits.shown
        alone[photo.hits.owners] += photo.hits.alone
        visible.append(visible_boxes(photo.owner, named))
    time_s = seconds_of(scene, sweep_stamp_us(scene, number))
    sweep = scan(world, time_s, (options.seed, scene, number, len(CAMERAS)))
    (root / file_name(scene, number, LIDAR_NAME)).write_bytes(sweep.points.tobytes())
    return _facts(world, scene, number, time_s, sweep.counts, shown, alone, visible)


def visible_boxes(owner: np.ndarray, named: np.ndarray, *, least_pixels: int = LEAST_PIXELS) -> np.ndarray:
    """(n, 6) int64: actor, x1, y1, x2, y2 and pixels of every actor that a picture shows enough of.

    Args:
        owner: (H, W), the actor in each pixel, -1 for none.
        named: (actors,) bool, which of them are annotated.
        least_pixels: how many have to be visible.
    """
    rows, columns = np.nonzero(owner >= 0)
    actors, place, pixels = np.unique(owner[rows, columns], return_inverse=True, return_counts=True)
    low = np.full((len(actors), 2), np.iinfo(np.int64).max)
    high = np.zeros((len(actors), 2), dtype=np.int64)
    for axis, values in enumerate((columns, rows)):
        np.minimum.at(low[:, axis], place, values)
        np.maximum.at(high[:, axis], place, values + 1)
    boxes = np.column_stack((actors, low, high, pixels))
    return boxes[named[actors] & (pixels >= least_pixels)]


def _write_jpeg(path: Path, bgr: np.ndarray) -> None:
    encoded = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[1]
    path.write_bytes(encoded.tobytes())


def _facts(
    world: World, scene: int, number: int, time_s: float, points, shown, alone, visible
) -> KeyframeFacts:
    ego, poses = world.ego_pose(time_s), world.poses(time_s)
    before, after = world.poses(time_s - SPEED_STEP_S), world.poses(time_s + SPEED_STEP_S)
    speed = np.hypot(after.x - before.x, after.y - before.y) / (2 * SPEED_STEP_S)
    named = np.array([bool(one.category) for one in world.actors])
    near = np.hypot(poses.x - ego[0], poses.y - ego[1]) < ANNOTATED_M
    chosen = np.flatnonzero(named & near)
    centre = np.stack((poses.x, poses.y, world.sizes_wlh[:, 2] / 2), axis=1)
    return KeyframeFacts(
        scene=scene,
        number=number,
        actors=chosen,
        centre=centre[chosen],
        yaw=poses.yaw[chosen],
        speed=speed[chosen],
        points=points[chosen],
        shown=shown[chosen],
        alone=alone[chosen],
        visible=tuple(visible),
    )
