"""Light, sky, ground colours and grain of one scene, drawn from its seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from synthetic_nuscenes.ground import Ground, paint_ground
from synthetic_nuscenes.world import World

GRAIN = 256  # the noise tile repeats after so many cells
SKY_HW = (160, 1024)
SKY_LOW_RAD, SKY_HIGH_RAD = -0.06, 0.75


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """sun (3,) unit vector to the sun; colours linear RGB in [0, 1]; haze_m: distance where 1/e is left.

    grain (GRAIN, GRAIN): noise of several octaves in [-1, 1]; sky (h, w, 3): the whole horizon, elevation
    from SKY_HIGH_RAD down to SKY_LOW_RAD, azimuth from 0 to 2π.
    """

    sun: np.ndarray
    sun_strength: float
    ambient: float
    haze: np.ndarray
    haze_m: float
    exposure: float
    tint: np.ndarray
    noise: float
    blur: float
    grain: np.ndarray
    sky: np.ndarray
    ground: Ground


def octaves(
    rng: np.random.Generator, size: int, weights=((4, 0.3), (16, 0.3), (64, 0.25), (256, 0.25))
) -> np.ndarray:
    """Noise (size, size) float32 that repeats at its borders, standard deviation about 0.4."""
    total = np.zeros((size, size), dtype=np.float32)
    for cells, weight in weights:
        coarse = rng.normal(0.0, 1.0, (cells, cells)).astype(np.float32)
        # Wrapped by a cell before it is enlarged, so that the tile has no seam.
        wrapped = np.pad(coarse, 1, mode="wrap")
        step = size // cells
        large = cv2.resize(wrapped, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR)
        total += weight * large[step : step + size, step : step + size]
    return np.clip(total, -1.5, 1.5)


@lru_cache(maxsize=2)
def make_look(world: World) -> Look:
    """The look of a scene; kept, since every image of the scene needs it."""
    rng = np.random.default_rng(world.look_seed)
    elevation, azimuth = rng.uniform(0.25, 1.2), rng.uniform(-np.pi, np.pi)
    overcast = rng.random() < 0.35
    sun = np.array(
        (np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation))
    )
    strength = rng.uniform(0.05, 0.25) if overcast else rng.uniform(0.6, 1.0)
    evening = rng.random() < 0.2
    top = np.array((0.30, 0.47, 0.78)) * rng.uniform(0.7, 1.1)
    horizon = np.array((0.72, 0.78, 0.86)) * rng.uniform(0.85, 1.1)
    if overcast:
        top = horizon = np.array((0.70, 0.72, 0.75)) * rng.uniform(0.7, 1.1)
    if evening:
        top, horizon = top * 0.45, np.array((0.75, 0.52, 0.40)) * rng.uniform(0.6, 0.9)
    grain = octaves(rng, GRAIN)
    return Look(
        sun=sun,
        sun_strength=float(strength),
        ambient=float(rng.uniform(0.35, 0.55)),
        haze=horizon.astype(np.float32),
        haze_m=float(rng.uniform(120.0, 600.0)),
        exposure=float(rng.uniform(0.45, 0.75) if evening else rng.uniform(0.8, 1.25)),
        tint=(1.0 + rng.normal(0.0, 0.04, 3)).astype(np.float32),
        noise=float(rng.uniform(0.006, 0.022)),
        blur=float(rng.uniform(0.3, 0.7)),
        grain=grain,
        sky=_sky(rng, grain, top, horizon, overcast),
        ground=paint_ground(rng, world, grain),
    )


def _sky(rng: np.random.Generator, grain: np.ndarray, top, horizon, overcast: bool) -> np.ndarray:
    height, width = SKY_HW
    elevation = np.linspace(SKY_HIGH_RAD, SKY_LOW_RAD, height)[:, None, None]
    blend = np.clip(elevation / 0.6, 0.0, 1.0) ** 0.7
    sky = horizon + (np.asarray(top) - horizon) * blend
    sky = np.broadcast_to(sky, (height, width, 3)).astype(np.float32).copy()
    clouds = cv2.resize(grain, (width, 4 * height), interpolation=cv2.INTER_LINEAR)[:height]
    cover = np.clip((clouds - rng.uniform(-0.2, 0.3)) * 2.0, 0.0, 1.0)[..., None] * blend.astype(np.float32)
    sky += cover * ((0.85 if not overcast else 0.5) * horizon + 0.12 - sky) * 0.8
    # Far hills and houses: a skyline in two layers that fades into the haze.
    to_row = height / (SKY_HIGH_RAD - SKY_LOW_RAD)
    foot = int(SKY_HIGH_RAD * to_row)
    for fade, roughness in ((0.4, 3), (0.75, 12)):
        steps = rng.integers(20, 90)
        skyline = np.repeat(rng.uniform(0.0, roughness, steps), -(-width // steps))[:width]
        if roughness < 5:
            skyline = cv2.GaussianBlur(skyline[None], (0, 0), 12).ravel() * 2
        colour = (
            np.asarray(horizon) * fade * rng.uniform(0.5, 0.9, 3) + np.asarray(horizon) * (1 - fade) * 0.5
        )
        for column, rise in enumerate(skyline.astype(int)):
            sky[foot - rise - 2 :, column] = colour
    return sky
