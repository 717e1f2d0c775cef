"""One scene: the road, everything on it, the light; a function of time, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camera3d.geometry import Float64
from synthetic_nuscenes.actors import Actor
from synthetic_nuscenes.options import SyntheticOptions
from synthetic_nuscenes.parts import Parts
from synthetic_nuscenes.path import Path, SpeedProfile, random_path, random_profile
from synthetic_nuscenes.street import CrossSection, Street, random_cross_section

OWN_LANE_M = 1.0
SLACK_M = 0.8


@dataclass(frozen=True, eq=False)
class Poses:
    """Where things are at one moment: x, y of the middle of the footprint in metres, yaw in radians; (n,)."""

    x: Float64
    y: Float64
    yaw: Float64


@dataclass(frozen=True, kw_only=True, eq=False)
class World:
    """A scene. `parts` are those of all actors together, owner = position in `actors`.

    `sizes_wlh` (n, 3) are the boxes of the actors in metres.
    """

    path: Path
    ego: SpeedProfile
    section: CrossSection
    profiles: tuple[SpeedProfile, ...]
    actors: tuple[Actor, ...]
    parts: Parts
    look_seed: tuple[int, ...]

    def ego_pose(self, time_s: float) -> tuple[float, float, float]:
        """x, y in metres and yaw in radians of the ego vehicle."""
        x, y, yaw = self.path.at(np.array(self.ego.at(time_s)), np.array(0.0))
        return float(x), float(y), float(yaw)

    def poses(self, time_s: float) -> Poses:
        """Every actor's pose."""
        gone = np.array([profile.at(time_s) for profile in self.profiles])
        m = self._motion
        s = m["s"] + m["gain"] * gone[m["profile"]] + m["speed"] * time_s
        lateral = m["lateral"] + m["lateral_speed"] * time_s
        x, y, heading = self.path.at(s, lateral)
        return Poses(x, y, heading + m["yaw"])

    def __post_init__(self) -> None:
        names = ("s", "gain", "speed", "lateral", "lateral_speed", "yaw")
        motion = {name: np.array([getattr(a, name) for a in self.actors], dtype=np.float64) for name in names}
        motion["profile"] = np.array([a.profile for a in self.actors], dtype=np.int64)
        object.__setattr__(self, "_motion", motion)
        object.__setattr__(self, "sizes_wlh", np.array([a.size_wlh for a in self.actors]))


def world_of(actors: list[Actor], **rest) -> World:
    """A world from its actors: gathers their parts."""
    parts = Parts.joined([one.parts.owned_by(i) for i, one in enumerate(actors)])
    return World(actors=tuple(actors), parts=parts, **rest)


def draft_world(options: SyntheticOptions, number: int, attempt: int) -> World:
    """Scene `number` of the dataset as the given attempt draws it; `make_world` chooses among these."""
    rng = np.random.default_rng((options.seed, number, attempt))
    path = random_path(rng, 13.0 * options.seconds + 30.0)
    ego = random_profile(rng, options.seconds, path)
    section = random_cross_section(rng)
    street = Street(rng, section, ego, options.seconds, options.density)
    return world_of(
        [one for one in street.actors if not _in_the_way(path, one)],
        path=path,
        ego=ego,
        section=section,
        profiles=tuple(street.profiles),
        look_seed=(options.seed, number, attempt, 1),
    )


def _in_the_way(path: Path, one: Actor) -> bool:
    """Whether a bend brings the road nearer to a thing that does not move than where it was put beside it."""
    if one.gain or one.speed or one.lateral_speed or abs(one.lateral) < OWN_LANE_M:
        return False
    x, y, _ = path.at(np.array(one.s), np.array(one.lateral))
    nearest = np.hypot(path.x - x, path.y - y).min()
    return bool(nearest < abs(one.lateral) - SLACK_M)
