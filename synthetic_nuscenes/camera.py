"""One camera image: ground and sky looked up, parts cast, light, haze, lens and sensor.

Shapes: H W image height and width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from synthetic_nuscenes import ground as ground_of
from synthetic_nuscenes.look import SKY_HIGH_RAD, SKY_HW, SKY_LOW_RAD, Look
from synthetic_nuscenes.raycast import Hits, cast
from synthetic_nuscenes.rig import CAMERAS
from synthetic_nuscenes.shading import shade
from synthetic_nuscenes.view import camera_targets, place, sensor_pose
from synthetic_nuscenes.world import World

BAND_STARTS_M = (0.0, 14.0, 50.0)  # from where on each level of the ground picture is used


@dataclass(frozen=True, eq=False)
class Screen:
    """What never changes for a camera and an image size, in the frame of a vehicle at the origin.

    rays (3, H·W): u, v, 1; depth (H, W): distance along the view to flat ground, inf above the horizon;
    ground_x, ground_y (H, W): where it is met; azimuth, elevation (H, W) of the ray in radians.
    """

    rays: np.ndarray
    depth: np.ndarray
    ground_x: np.ndarray
    ground_y: np.ndarray
    azimuth: np.ndarray
    elevation: np.ndarray
    band_rows: tuple[int, ...]
    vignette: np.ndarray


@lru_cache(maxsize=12)
def screen_of(channel: str, image_hw: tuple[int, int]) -> Screen:
    """The screen of a camera."""
    height, width = image_hw
    rotation, origin = sensor_pose(CAMERAS[channel], (0.0, 0.0, 0.0))
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack((u, v, np.ones_like(u)), axis=-1)
    directions = rays @ (rotation @ np.linalg.inv(CAMERAS[channel].intrinsic(image_hw))).T
    down = directions[..., 2] < -1e-4
    depth = np.where(down, -origin[2] / np.where(down, directions[..., 2], 1.0), np.inf)
    met = np.where(down, depth, 0.0)
    x, y = origin[0] + met * directions[..., 0], origin[1] + met * directions[..., 1]
    nearest_of_row = depth.min(axis=1)
    band_rows = tuple(int((nearest_of_row >= start).sum()) for start in BAND_STARTS_M)
    radius = np.hypot(u / width - 0.5, v / height - 0.5)
    as_float = [
        np.ascontiguousarray(a, dtype=np.float32)
        for a in (
            rays.reshape(-1, 3).T,
            depth,
            x,
            y,
            np.arctan2(directions[..., 1], directions[..., 0]),
            np.arctan2(directions[..., 2], np.hypot(directions[..., 0], directions[..., 1])),
        )
    ]
    return Screen(*as_float, band_rows, (1.0 - 0.35 * radius**2).astype(np.float32)[..., None])


@dataclass(frozen=True, eq=False)
class Photo:
    """bgr (H, W, 3) uint8; owner (H, W) int32: the actor in each pixel, -1 for none; hits of all rays."""

    bgr: np.ndarray
    owner: np.ndarray
    hits: Hits


def photograph(
    world: World, look: Look, channel: str, time_s: float, image_hw: tuple[int, int], seed: tuple[int, ...]
) -> Photo:
    """The image of a camera that fires `time_s` seconds after the scene's start."""
    rng = np.random.default_rng(seed)
    ego, poses = world.ego_pose(time_s), world.poses(time_s)
    screen = screen_of(channel, image_hw)
    rotation, origin = sensor_pose(CAMERAS[channel], ego)
    placed = place(world, poses, ego[:2])
    targets, kept = camera_targets(placed, rotation, origin, CAMERAS[channel].intrinsic(image_hw), image_hw)
    hits = cast(targets, screen.rays, image_hw[1])
    shadows = ground_of.shadow_map(
        world, poses, ego[:2], look.sun, 0.85 * look.sun_strength / (look.sun_strength + look.ambient)
    )
    image = _background(screen, look, ego, shadows)
    depth = screen.depth.ravel().copy()
    pixels = np.flatnonzero((hits.part >= 0) & (hits.t < depth))
    flat = image.reshape(-1, 3)
    if len(pixels):
        flat[pixels] = shade(look, placed.take(kept), targets, hits, pixels, screen.rays)
        depth[pixels] = hits.t[pixels]
    _haze(flat, depth, look)
    owner = np.full(len(flat), -1, dtype=np.int32)
    owner[pixels] = targets.owner[hits.part[pixels]]
    return Photo(_develop(image, screen, look, rng), owner.reshape(image_hw), hits)


def _background(
    screen: Screen, look: Look, ego: tuple[float, float, float], shadows: np.ndarray
) -> np.ndarray:
    """(H, W, 3) float32: sky above, ground with shadows below."""
    height, width = screen.depth.shape
    c, s = np.float32(np.cos(ego[2])), np.float32(np.sin(ego[2]))
    ahead = c * screen.ground_x - s * screen.ground_y
    aside = s * screen.ground_x + c * screen.ground_y
    image = np.empty((height, width, 3), dtype=np.float32)
    sky_rows = int(np.isinf(screen.depth).any(axis=1).sum())
    column = (
        (screen.azimuth[:sky_rows] + np.float32(ego[2]))
        % np.float32(2 * np.pi)
        * np.float32(SKY_HW[1] / (2 * np.pi))
    )
    row = (SKY_HIGH_RAD - screen.elevation[:sky_rows]) * np.float32(SKY_HW[0] / (SKY_HIGH_RAD - SKY_LOW_RAD))
    if sky_rows:
        image[:sky_rows] = cv2.remap(look.sky, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    corner = look.ground.corner_xy
    light = (look.ambient + look.sun_strength * 0.75 * look.sun[2]) / 255.0
    stops = (*screen.band_rows[1:], 0)
    for level, (start, stop) in enumerate(zip(screen.band_rows, stops, strict=True)):
        rows = slice(min(stop, start), height if level == 0 else start)
        if rows.stop <= rows.start:
            continue
        cell = np.float32(ground_of.CELL_M * 4**level)
        mx = (ahead[rows] + np.float32(ego[0] - corner[0])) / cell - 0.5
        my = (aside[rows] + np.float32(ego[1] - corner[1])) / cell - 0.5
        picture = cv2.remap(
            look.ground.levels[level], mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        reach, step = np.float32(ground_of.SHADOW_REACH_M), np.float32(ground_of.SHADOW_CELL_M)
        dark = cv2.remap(
            shadows,
            (ahead[rows] + reach) / step - 0.5,
            (aside[rows] + reach) / step - 0.5,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=255,
        )
        lit = picture * (dark.astype(np.float32) * np.float32(light / 255.0))[..., None]
        ground = np.isfinite(screen.depth[rows])
        if rows.start < sky_rows:
            image[rows] = np.where(ground[..., None], lit, image[rows])
        else:
            image[rows] = lit
    return image


def _haze(flat: np.ndarray, depth: np.ndarray, look: Look) -> None:
    """Blend what is far into the colour of the horizon, in place; the sky has its own."""
    left = np.exp(depth * np.float32(-1.0 / look.haze_m))
    left[~np.isfinite(depth)] = 1.0
    flat *= left[:, None]
    flat += (1.0 - left)[:, None] * look.haze


def _develop(image: np.ndarray, screen: Screen, look: Look, rng: np.random.Generator) -> np.ndarray:
    """Lens and sensor: vignette, blur, exposure, noise, gamma; to BGR bytes."""
    image *= screen.vignette * (look.tint * look.exposure)
    image = cv2.GaussianBlur(image, (3, 3), look.blur)
    height, width = image.shape[:2]
    np.clip(image, 0.0, 1.0, out=image)
    np.sqrt(image, out=image)
    # One tile of noise laid at random places: drawing fresh noise would cost as much as the rest.
    tile = _noise_tile()
    size = tile.shape[0] // 2
    for top in range(0, height, size):
        for left in range(0, width, size):
            block = image[top : top + size, left : left + size]
            down, right = rng.integers(0, size, 2)
            block += tile[down : down + block.shape[0], right : right + block.shape[1]] * np.float32(
                look.noise
            )
    np.clip(image, 0.0, 1.0, out=image)
    return cv2.cvtColor(cv2.convertScaleAbs(image, alpha=255.0), cv2.COLOR_RGB2BGR)


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    return np.random.default_rng(7).normal(0.0, 1.0, (512, 512, 3)).astype(np.float32)
