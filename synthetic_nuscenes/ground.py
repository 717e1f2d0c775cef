"""The ground seen from above: asphalt, markings, pavements, grass, as a picture with a scale, and shadows."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from synthetic_nuscenes.street import PAVEMENT_M
from synthetic_nuscenes.world import Poses, World

CELL_M = 0.1
BORDER_M = 90.0
LEVELS = 3  # each four times coarser than the one before, for what is far away
SHADOW_CELL_M = 0.2
SHADOW_REACH_M = 60.0


@dataclass(frozen=True, eq=False)
class Ground:
    """levels: pictures (h, w, 3) uint8 RGB; cell (0, 0) of the first has its corner at `corner_xy`."""

    levels: tuple[np.ndarray, ...]
    corner_xy: tuple[float, float]


def road_extent(world: World) -> tuple[float, float, float, float]:
    """x and y of the first corner, width and height in metres: the road the ego drives, with a border."""
    end = world.ego.distance_m[-1]
    near = (world.path.s > -70.0) & (world.path.s < end + 90.0)
    x, y = world.path.x[near], world.path.y[near]
    left, low = max(0.0, x.min() - BORDER_M), max(0.0, y.min() - BORDER_M)
    return left, low, x.max() + BORDER_M - left, y.max() + BORDER_M - low


def paint_ground(rng: np.random.Generator, world: World, grain: np.ndarray) -> Ground:
    """Paint the whole stretch of road at CELL_M."""
    left, low, width_m, height_m = road_extent(world)
    shape = (int(height_m / CELL_M) + 1, int(width_m / CELL_M) + 1)
    section, canvas = world.section, np.empty((*shape, 3), dtype=np.uint8)
    field = np.array(((70, 92, 45), (105, 96, 70), (120, 118, 112), (60, 75, 40))[rng.integers(4)])
    canvas[:] = np.clip(field * rng.uniform(0.8, 1.2), 0, 255)
    brush = _Brush(world, canvas, (left, low))
    pavement = np.array((140, 136, 130)) * rng.uniform(0.7, 1.2)
    asphalt = np.array((82, 82, 84)) * rng.uniform(0.6, 1.25)
    right, leftmost = section.right_kerb, section.left_kerb
    brush.ribbon(right - PAVEMENT_M, leftmost + PAVEMENT_M, pavement)
    brush.ribbon(right - 0.15, leftmost + 0.15, pavement * 1.25)
    brush.ribbon(right, leftmost, asphalt)
    brush.ribbon(right, section.right_lane_edge - 1.6, asphalt * rng.uniform(0.85, 1.1))
    for _ in range(int(rng.integers(6, 20))):
        s = rng.uniform(-60, world.ego.distance_m[-1] + 80)
        at = rng.uniform(right, leftmost - 1.5)
        brush.ribbon(
            at, at + rng.uniform(0.4, 3.0), asphalt * rng.uniform(0.75, 1.15), s, s + rng.uniform(0.8, 14.0)
        )
    _markings(rng, world, brush)
    _grain(canvas, grain)
    levels = [canvas]
    for _ in range(LEVELS - 1):
        levels.append(cv2.resize(levels[-1], None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA))
    return Ground(tuple(levels), (left, low))


def _markings(rng: np.random.Generator, world: World, brush: _Brush) -> None:
    section, paint = world.section, np.array((205, 205, 198)) * rng.uniform(0.75, 1.1)
    brush.ribbon(section.right_lane_edge - 0.07, section.right_lane_edge + 0.07, paint)
    brush.ribbon(section.left_lane_edge - 0.07, section.left_lane_edge + 0.07, paint)
    middle = np.array((200, 165, 40)) if rng.random() < 0.5 else paint
    brush.ribbon(1.68, 1.82, middle)
    borders = [-1.75] if len([1 for lane, way in section.lanes if way > 0]) else []
    borders += [lane + 1.75 for lane, way in section.lanes if way < 0][:-1]
    for border in borders:
        for s in np.arange(-68.0, world.ego.distance_m[-1] + 88.0, 6.0):
            brush.ribbon(border - 0.06, border + 0.06, paint, s, s + 3.0)
    for s in (world.ego.distance_m[-1] + 10.5, -12.0):
        for lateral in np.arange(section.right_kerb + 0.4, section.left_kerb - 0.4, 1.0):
            brush.ribbon(lateral, lateral + 0.5, paint, s - 1.6, s + 1.6)


def _grain(canvas: np.ndarray, grain: np.ndarray) -> None:
    """Make every surface rough, in place: fine grain, and large blotches where the tile is stretched."""
    height, width = canvas.shape[:2]
    tile = np.clip(100 + 16 * grain, 1, 255).astype(np.uint8)
    tile = np.tile(tile, (-(-height // len(grain)), -(-width // len(grain))))[:height, :width]
    coarse = cv2.resize(np.clip(100 + 10 * grain, 1, 255).astype(np.uint8), (width, height))
    for channel in range(3):
        once = cv2.multiply(canvas[..., channel], tile, scale=0.01)
        canvas[..., channel] = cv2.multiply(once, coarse, scale=0.01)


class _Brush:
    """Paints ribbons along the path onto the picture."""

    def __init__(self, world: World, canvas: np.ndarray, corner_xy: tuple[float, float]):
        self._path, self._canvas, self._corner = world.path, canvas, corner_xy
        self._span = (-75.0, float(world.ego.distance_m[-1]) + 95.0)

    def ribbon(
        self, low: float, high: float, colour, start: float | None = None, stop: float | None = None
    ) -> None:
        """Fill laterals low to high, from `start` to `stop` along the road; all of it by default."""
        start = self._span[0] if start is None else start
        stop = self._span[1] if stop is None else stop
        s = np.linspace(start, stop, max(2, int((stop - start) / 1.0)))
        sides = [np.stack(self._path.at(s, np.full_like(s, lateral))[:2], axis=1) for lateral in (low, high)]
        pixels = [(side - self._corner) / CELL_M for side in sides]
        quads = np.stack((pixels[0][:-1], pixels[0][1:], pixels[1][1:], pixels[1][:-1]), axis=1)
        fixed = np.round(quads * 16).astype(np.int32)
        value = [float(v) for v in np.clip(colour, 0, 255)]
        for quad in fixed:
            cv2.fillConvexPoly(self._canvas, quad, value, lineType=cv2.LINE_8, shift=4)


def shadow_map(
    world: World, poses: Poses, around_xy: tuple[float, float], sun: np.ndarray, strength: float
) -> np.ndarray:
    """How much light reaches the ground, (n, n) uint8, 255 is all; centred, cells of SHADOW_CELL_M.

    A thing throws the hull of its footprint and of the footprint moved along the light by its height; below
    it, whatever the light, it is dark.
    """
    size = int(2 * SHADOW_REACH_M / SHADOW_CELL_M)
    cast, contact = np.full((size, size), 255, np.uint8), np.full((size, size), 255, np.uint8)
    near = np.flatnonzero(np.hypot(poses.x - around_xy[0], poses.y - around_xy[1]) < SHADOW_REACH_M + 15.0)
    size_m = world.sizes_wlh[near]
    c, s = np.cos(poses.yaw[near]), np.sin(poses.yaw[near])
    axes = np.stack((np.stack((c, s), -1), np.stack((-s, c), -1)), axis=1)
    signs = np.array(((1, 1), (1, -1), (-1, -1), (-1, 1))) / 2
    corners = np.einsum("ki,ni,nij->nkj", signs, size_m[:, [1, 0]], axes)
    middle = np.stack((poses.x[near], poses.y[near]), -1) - around_xy + SHADOW_REACH_M
    thrown = np.minimum(size_m[:, 2], 12.0)[:, None] * (-sun[:2] / max(sun[2], 0.2))
    below = middle[:, None] + corners
    both = np.concatenate((below, middle[:, None] + 0.9 * corners + thrown[:, None]), axis=1)
    below, both = ((points * (16 / SHADOW_CELL_M)).astype(np.int32) for points in (below, both))
    for i in range(len(near)):
        cv2.fillConvexPoly(cast, cv2.convexHull(both[i]), 255 * (1 - strength), shift=4)
        cv2.fillConvexPoly(contact, below[i], 90, shift=4)
    cast, contact = cv2.GaussianBlur(cast, (3, 3), 0), cv2.GaussianBlur(contact, (7, 7), 0)
    return cv2.multiply(cast, contact, scale=1 / 255.0)


def drivable(world: World) -> np.ndarray:
    """The devkit's map of the scene: (h, w) uint8, 255 where road or pavement is, 0.1 m a cell, north up."""
    left, low, width_m, height_m = road_extent(world)
    canvas = np.zeros((int((low + height_m) / CELL_M) + 1, int((left + width_m) / CELL_M) + 1, 3), np.uint8)
    brush = _Brush(world, canvas, (0.0, 0.0))
    brush.ribbon(world.section.right_kerb - PAVEMENT_M, world.section.left_kerb + PAVEMENT_M, (255, 255, 255))
    return np.ascontiguousarray(canvas[::-1, :, 0])
