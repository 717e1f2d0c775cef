"""Parts in the frame of a sensor: what a camera or the LiDAR has to cast its rays at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthetic_nuscenes.parts import Parts, tilt
from synthetic_nuscenes.raycast import Targets
from synthetic_nuscenes.rig import Mount
from synthetic_nuscenes.world import Poses, World

FARTHEST_M = 130.0
NEAR_M = 0.3
CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=np.float64)
EDGES = np.array([(i, j) for i in range(8) for j in range(i + 1, 8) if bin(i ^ j).count("1") == 1])


@dataclass(frozen=True, eq=False)
class Placed:
    """Parts in the global frame: centre (n, 3) and turn (n, 3, 3), part to global."""

    parts: Parts
    centre: np.ndarray
    turn: np.ndarray

    def take(self, which: np.ndarray) -> Placed:
        """The parts at these positions."""
        return Placed(self.parts.take(which), self.centre[which], self.turn[which])


def place(
    world: World, poses: Poses, around_xy: tuple[float, float], farthest_m: float = FARTHEST_M
) -> Placed:
    """The parts of all actors within reach, moved to where the actors are."""
    near = np.hypot(poses.x - around_xy[0], poses.y - around_xy[1]) < farthest_m
    parts = world.parts.take(np.flatnonzero(near[world.parts.owner]))
    c, s = np.cos(poses.yaw)[parts.owner], np.sin(poses.yaw)[parts.owner]
    yaw = np.zeros((len(parts), 3, 3))
    yaw[:, 0, 0], yaw[:, 0, 1], yaw[:, 1, 0], yaw[:, 1, 1], yaw[:, 2, 2] = c, -s, s, c, 1.0
    centre = np.einsum("nij,nj->ni", yaw, parts.centre)
    centre[:, 0] += poses.x[parts.owner]
    centre[:, 1] += poses.y[parts.owner]
    return Placed(parts, centre, yaw @ parts.turn)


def sensor_pose(mount: Mount, ego: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Rotation (3, 3) and origin (3,) of a sensor, to global, for an ego pose x, y, yaw."""
    turn = tilt("z", ego[2])
    local = mount.sensor_to_ego
    return turn @ local[:3, :3], turn @ local[:3, 3] + (ego[0], ego[1], 0.0)


def camera_targets(
    placed: Placed, rotation: np.ndarray, origin: np.ndarray, intrinsic: np.ndarray, image_hw: tuple[int, int]
) -> tuple[Targets, np.ndarray]:
    """The targets of a camera, whose rays are (u, v, 1), and their positions in `placed`; t is depth."""
    height, width = image_hw
    corners = placed.centre[:, None] + np.einsum(
        "nij,nkj->nki", placed.turn, CORNERS * placed.parts.half[:, None]
    )
    seen = (corners - origin) @ rotation  # (n, 8, 3) camera frame
    rows, columns = _rectangles(seen, intrinsic, height, width)
    keep = np.flatnonzero((rows[:, 1] > rows[:, 0]) & (columns[:, 1] > columns[:, 0]))
    rays_to_global = rotation @ np.linalg.inv(intrinsic)
    return _targets(placed.take(keep), rays_to_global, origin, rows[keep], columns[keep]), keep


def _rectangles(seen: np.ndarray, intrinsic: np.ndarray, height: int, width: int):
    """Rows and columns (n, 2) that hold the projection; the edges are cut at the near plane."""
    start, stop = seen[:, EDGES[:, 0]], seen[:, EDGES[:, 1]]
    share = np.clip(
        (NEAR_M - start[..., 2])
        / np.where(stop[..., 2] == start[..., 2], 1e-9, stop[..., 2] - start[..., 2]),
        0,
        1,
    )
    cut = start + share[..., None] * (stop - start)
    points = np.concatenate((seen, cut), axis=1)
    front = points[..., 2] >= NEAR_M - 1e-6
    depth = np.maximum(points[..., 2], NEAR_M)
    u = intrinsic[0, 0] * points[..., 0] / depth + intrinsic[0, 2]
    v = intrinsic[1, 1] * points[..., 1] / depth + intrinsic[1, 2]

    def extent(values: np.ndarray, size: int) -> np.ndarray:
        low = np.where(front, values, np.inf).min(axis=1)
        high = np.where(front, values, -np.inf).max(axis=1)
        low, high = np.clip(np.stack((np.ceil(low), np.floor(high) + 1)), 0, size)
        return np.stack((low, np.maximum(low, high)), axis=1).astype(np.int32)

    rows, columns = extent(v - 0.5, height), extent(u - 0.5, width)
    nothing = ~front.any(axis=1)
    rows[nothing], columns[nothing] = 0, 0
    return rows, columns


def _targets(placed: Placed, rays_to_global: np.ndarray, origin: np.ndarray, rows, columns) -> Targets:
    to_unit = np.swapaxes(placed.turn, 1, 2) / placed.parts.half[:, :, None]
    return Targets(
        kind=placed.parts.kind,
        taper=placed.parts.taper.astype(np.float32),
        owner=placed.parts.owner,
        to_part=(to_unit @ rays_to_global).astype(np.float32),
        origin=np.einsum("nij,nj->ni", to_unit, origin - placed.centre).astype(np.float32),
        rows=rows,
        columns=columns,
    )


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The LiDAR's rays: beams from above the horizon to below it, columns counter-clockwise from forward."""

    beams: int = 32
    columns: int = 720
    top_rad: float = np.deg2rad(10.67)
    bottom_rad: float = np.deg2rad(-30.67)

    @property
    def elevations(self) -> np.ndarray:
        """(beams,) radians, the highest first."""
        return np.linspace(self.top_rad, self.bottom_rad, self.beams)

    def rays(self) -> np.ndarray:
        """(3, beams · columns) unit directions in a frame that is the ego frame turned nowhere."""
        azimuth = np.arange(self.columns) * (2 * np.pi / self.columns)
        elevation, azimuth = np.meshgrid(self.elevations, azimuth, indexing="ij")
        flat = np.cos(elevation)
        directions = np.stack((flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)), axis=-1)
        return np.ascontiguousarray(directions.reshape(-1, 3).T, dtype=np.float32)


def lidar_targets(placed: Placed, yaw: float, origin: np.ndarray, sweep: Sweep) -> tuple[Targets, np.ndarray]:
    """The targets of a level LiDAR that looks along `yaw`, and their positions in `placed`. t is metres."""
    corners = placed.centre[:, None] + np.einsum(
        "nij,nkj->nki", placed.turn, CORNERS * placed.parts.half[:, None]
    )
    seen = (corners - origin) @ tilt("z", yaw)
    centre = seen.mean(axis=1)
    middle = np.arctan2(centre[:, 1], centre[:, 0])
    step = 2 * np.pi / sweep.columns
    around = np.arctan2(seen[..., 1], seen[..., 0]) - middle[:, None]
    around = (around + np.pi) % (2 * np.pi) - np.pi + middle[:, None]
    columns = np.stack((np.ceil(around.min(1) / step), np.floor(around.max(1) / step) + 1), axis=1)
    reach = np.linalg.norm(placed.parts.half, axis=1)
    flat = np.hypot(centre[:, 0], centre[:, 1])
    low_z, high_z = seen[..., 2].min(1), seen[..., 2].max(1)
    near, far = np.maximum(flat - reach, 0.3), flat + reach
    highest = np.arctan2(high_z, np.where(high_z > 0, near, far))
    lowest = np.arctan2(low_z, np.where(low_z > 0, far, near))
    spacing = (sweep.bottom_rad - sweep.top_rad) / (sweep.beams - 1)
    rows = np.stack(
        (np.ceil((highest - sweep.top_rad) / spacing), np.floor((lowest - sweep.top_rad) / spacing) + 1),
        axis=1,
    )
    rows = np.clip(rows, 0, sweep.beams).astype(np.int32)
    columns = columns.astype(np.int32)
    columns[:, 1] = np.minimum(columns[:, 1], columns[:, 0] + sweep.columns)
    keep = np.flatnonzero((rows[:, 1] > rows[:, 0]) & (columns[:, 1] > columns[:, 0]))
    return _targets(placed.take(keep), tilt("z", yaw), origin, rows[keep], columns[keep]), keep
