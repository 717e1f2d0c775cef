"""Where the road goes and how fast things move along it.

Everything in a scene lives beside one curve, the middle of the ego vehicle's lane: a place is (s, lateral),
metres along the curve and metres to its left. Motion along the curve is a speed profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camera3d.geometry import Float64

STEP_M = 0.5
MARGIN_M = 260.0  # the road goes on before the start and behind the end
STEP_S = 0.02
LEAD_S = 0.2  # cameras fire before the first sweep


@dataclass(frozen=True, eq=False)
class Path:
    """The curve as a table: arc length s (n,), x, y, heading in radians, curvature in 1/m."""

    s: Float64
    x: Float64
    y: Float64
    heading: Float64
    curvature: Float64

    def at(self, s: Float64, lateral: Float64) -> tuple[Float64, Float64, Float64]:
        """x, y and heading of the places (s, lateral), any shape."""
        heading = np.interp(s, self.s, self.heading)
        x = np.interp(s, self.s, self.x) - lateral * np.sin(heading)
        y = np.interp(s, self.s, self.y) + lateral * np.cos(heading)
        return x, y, heading


def random_path(rng: np.random.Generator, length_m: float) -> Path:
    """Straights and bends of 22 to 60 m radius; never turning so far that the road meets itself."""
    s = np.arange(-MARGIN_M, length_m + MARGIN_M, STEP_M)
    curvature = np.zeros_like(s)
    turned, at = 0.0, rng.uniform(5.0, 50.0)
    while at < length_m:
        if rng.random() < 0.7:
            radius, angle = rng.uniform(22.0, 60.0), rng.uniform(0.3, 1.5)
        else:
            radius, angle = rng.uniform(80.0, 300.0), rng.uniform(0.1, 0.4)
        sign = -np.sign(turned) if abs(turned) > 0.4 else rng.choice((-1.0, 1.0))
        bend = (s >= at) & (s < at + radius * angle)
        curvature[bend] = sign / radius
        turned += sign * angle
        at += radius * angle + rng.uniform(25.0, 120.0)
    kernel = np.hanning(23)
    curvature = np.convolve(curvature, kernel / kernel.sum(), mode="same")
    heading = np.cumsum(curvature) * STEP_M
    heading += rng.uniform(-np.pi, np.pi) - heading[np.searchsorted(s, 0.0)]
    x, y = np.cumsum(np.cos(heading)) * STEP_M, np.cumsum(np.sin(heading)) * STEP_M
    # The devkit's maps have their origin in a corner: keep everything at positive coordinates.
    return Path(s=s, x=x - x.min() + 100.0, y=y - y.min() + 100.0, heading=heading, curvature=curvature)


@dataclass(frozen=True, eq=False)
class SpeedProfile:
    """Distance driven (m) as a table over time (s); time 0 is distance 0."""

    time_s: Float64
    distance_m: Float64

    def at(self, time_s: float) -> float:
        """Distance in metres at a time in seconds."""
        return float(np.interp(time_s, self.time_s, self.distance_m))


def random_profile(
    rng: np.random.Generator, seconds: float, path: Path | None = None, start_m: float = 0.0
) -> SpeedProfile:
    """Cruising, slowing, stopping and starting; slower in the bends of `path` when one is given."""
    count = int(np.ceil((seconds + 2 * LEAD_S) / STEP_S)) + 1
    time_s = np.arange(count) * STEP_S - LEAD_S
    distance = np.zeros(count)
    speed, target, until = rng.uniform(2.0, 11.0), rng.uniform(4.0, 11.0), rng.uniform(1.0, 3.0)
    for i in range(1, count):
        if time_s[i] > until:
            target = rng.choice((0.0, 3.0, 6.0, 9.0, 12.0), p=(0.22, 0.13, 0.25, 0.25, 0.15))
            until = time_s[i] + rng.uniform(2.0, 5.0)
        allowed = target
        if path is not None:
            ahead = start_m + distance[i - 1] + np.array([0.0, 5.0, 10.0])
            bend = np.abs(np.interp(ahead, path.s, path.curvature)).max()
            allowed = min(target, np.sqrt(2.2 / max(bend, 1e-3)))
        speed = max(0.0, speed + float(np.clip((allowed - speed) / 0.8, -3.0, 2.0)) * STEP_S)
        if allowed == 0.0 and speed < 0.15:
            speed = 0.0
        distance[i] = distance[i - 1] + speed * STEP_S
    return SpeedProfile(time_s, distance - np.interp(0.0, time_s, distance))
