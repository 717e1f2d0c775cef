"""One LiDAR sweep: a cheap ray cast, so that point counts fall with distance and behind other things."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from synthetic_nuscenes.raycast import cast
from synthetic_nuscenes.rig import LIDAR
from synthetic_nuscenes.view import Sweep, lidar_targets, place, sensor_pose
from synthetic_nuscenes.world import World

SWEEP = Sweep()
REACH_M = 75.0
NOISE_M = 0.015


@lru_cache(maxsize=1)
def _rays() -> np.ndarray:
    return SWEEP.rays()


@dataclass(frozen=True, eq=False)
class Scan:
    """points (n, 5) float32 in the LiDAR frame: x, y, z, intensity, ring; counts (actors,) points on each."""

    points: np.ndarray
    counts: np.ndarray


def scan(world: World, time_s: float, seed: tuple[int, ...]) -> Scan:
    """The sweep at `time_s` seconds after the scene's start; the vehicle stands still during it."""
    rng = np.random.default_rng(seed)
    ego = world.ego_pose(time_s)
    rotation, origin = sensor_pose(LIDAR, ego)
    placed = place(world, world.poses(time_s), ego[:2], REACH_M + 30.0)
    rays = _rays()
    targets, _ = lidar_targets(placed, ego[2], origin, SWEEP)
    hits = cast(targets, rays, SWEEP.columns)
    down = rays[2] < -1e-3
    to_ground = np.where(down, -origin[2] / np.where(down, rays[2], -1.0), np.inf)
    distance = np.minimum(hits.t, to_ground)
    # Far returns are lost the more often, the farther they are.
    returned = (distance < REACH_M) & (rng.random(rays.shape[1]) < 1.1 - distance / REACH_M * 0.6)
    on_part = returned & (hits.t < to_ground)
    counts = np.bincount(targets.owner[hits.part[on_part]], minlength=len(world.actors))
    distance = distance[returned] + rng.normal(0.0, NOISE_M, int(returned.sum()))
    turn = np.array(((np.cos(ego[2]), -np.sin(ego[2]), 0), (np.sin(ego[2]), np.cos(ego[2]), 0), (0, 0, 1.0)))
    points = ((rays[:, returned] * distance).T) @ turn.T @ rotation
    intensity = rng.integers(0, 60, len(points))
    ring = SWEEP.beams - 1 - np.flatnonzero(returned) // SWEEP.columns
    return Scan(np.column_stack((points, intensity, ring)).astype(np.float32), counts)
