"""The cross-section of a scene's road and everything that is put on and beside it.

Right-hand traffic. Laterals are metres to the left of the ego lane's middle; from right to left: houses,
pavement, kerb, parking, cycle strip, lanes, cycle strip, parking, kerb, pavement, houses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from synthetic_nuscenes import clutter
from synthetic_nuscenes.actors import EGO_PROFILE, Actor, actor, scenery
from synthetic_nuscenes.path import SpeedProfile, random_profile

LANE_M = 3.5
CYCLE_M = 1.6
PARKING_M = 2.8
PAVEMENT_M = 4.5
BEHIND_M, AHEAD_M = 75.0, 100.0


@dataclass(frozen=True, kw_only=True)
class CrossSection:
    """Lanes beside the ego's: laterals of their middles and the direction of travel, and the kerbs."""

    lanes: tuple[tuple[float, int], ...]
    right_lane_edge: float
    left_lane_edge: float

    @property
    def right_kerb(self) -> float:
        return self.right_lane_edge - CYCLE_M - PARKING_M

    @property
    def left_kerb(self) -> float:
        return self.left_lane_edge + CYCLE_M + PARKING_M


def random_cross_section(rng: np.random.Generator) -> CrossSection:
    """One or two lanes in the ego's direction, one or two against it."""
    right, left = int(rng.random() < 0.4), int(rng.integers(1, 3))
    lanes = [(-LANE_M, 1)] if right else []
    lanes += [(LANE_M * (i + 1), -1) for i in range(left)]
    return CrossSection(
        lanes=tuple(lanes),
        right_lane_edge=-LANE_M * (right + 0.5),
        left_lane_edge=LANE_M * (left + 0.5),
    )


class Street:
    """Fills one scene; `actors` and `profiles` are the result.

    Args:
        ego: the speed profile of the ego vehicle.
        seconds: length of the scene; density: multiplies how much there is.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        section: CrossSection,
        ego: SpeedProfile,
        seconds: float,
        density: float,
    ):
        self._rng, self.section, self._density = rng, section, density
        self._seconds, self._end = seconds, ego.at(seconds)
        self.profiles: list[SpeedProfile] = [SpeedProfile(ego.time_s, 0.0 * ego.distance_m), ego]
        self.actors: list[Actor] = []
        self._taken: dict[str, list[tuple[float, float]]] = {"left": [], "right": []}
        self._road_works()
        self._parked()
        self._lanes()
        self._cycle_strips()
        self._pavements()
        self._backdrop()

    def _add(self, category: str, s: float, lateral: float, **rest) -> Actor:
        self.actors.append(actor(self._rng, category, s, lateral, **rest))
        return self.actors[-1]

    def _places(self, mean_gap_m: float, low: float, high: float):
        """Random positions along the road, more of them when it is dense."""
        at = low + self._rng.exponential(mean_gap_m / self._density)
        while at < high:
            yield at
            at += 0.3 * mean_gap_m + self._rng.exponential(0.7 * mean_gap_m / self._density)

    def _road_works(self) -> None:
        """A fenced stretch of the parking strip: barriers, cones, a machine and workers."""
        rng, at = self._rng, self._rng.uniform(9.0, 16.0)
        while at < self._end + 60.0:
            side = rng.choice(("left", "right"))
            sign = 1.0 if side == "left" else -1.0
            lane_edge = self.section.left_lane_edge if side == "left" else self.section.right_lane_edge
            length = rng.uniform(14.0, 22.0)
            self._taken[side].append((at - 3.0, at + length + 3.0))
            middle = lane_edge + sign * (CYCLE_M + 0.5 * PARKING_M)
            for i in range(int(length / 2.75)):
                self._add(
                    "movable_object.barrier",
                    at + 1.4 + 2.75 * i,
                    lane_edge + sign * 0.9,
                    yaw=np.pi / 2 + rng.normal(0, 0.06),
                )
            for i in range(int(rng.integers(4, 8) * max(1.0, self._density))):
                self._add(
                    "movable_object.trafficcone",
                    at - 4.0 + i * 2.2 + rng.normal(0, 0.3),
                    lane_edge + sign * rng.uniform(0.1, 0.3),
                    yaw=rng.uniform(-np.pi, np.pi),
                )
            self._add(
                "vehicle.construction",
                at + 0.5 * length,
                middle + sign * 0.3,
                yaw=rng.choice((0.0, np.pi)) + rng.normal(0, 0.15),
                parked=rng.random() < 0.6,
            )
            for _ in range(rng.integers(1, 4)):
                self._add(
                    "human.pedestrian.construction_worker",
                    at + rng.uniform(0.5, 0.25 * length),
                    middle + rng.uniform(-0.8, 0.8),
                    yaw=rng.uniform(-np.pi, np.pi),
                )
            at += length + rng.uniform(50.0, 100.0)

    def _parked(self) -> None:
        """Vehicles at the kerbs; the kinds that are rare stand near the start of every scene."""
        rng = self._rng
        rare = ["vehicle.bus.rigid", "vehicle.trailer", "vehicle.truck"]
        common = (
            ["vehicle.car"] * 24
            + ["vehicle.truck"] * 3
            + ["vehicle.trailer", "vehicle.bus.rigid", "vehicle.construction"]
        )
        for side in ("left", "right"):
            kerb = self.section.left_kerb if side == "left" else self.section.right_kerb
            sign, at = (1.0, -BEHIND_M) if side == "left" else (-1.0, -BEHIND_M)
            while at < self._end + AHEAD_M:
                wanted = bool(rare) and 3.0 < at < 42.0 and (at > 12.0 or rng.random() < 0.5)
                category = rare.pop(rng.integers(len(rare))) if wanted else common[rng.integers(len(common))]
                lateral = (
                    kerb - sign * (0.15 + 0.5 * PARKING_M)
                    if category != "vehicle.car"
                    else kerb - sign * 1.25
                )
                yaw = (0.0 if side == "right" else np.pi) + rng.normal(0, 0.02)
                one = actor(rng, category, 0.0, lateral, yaw=yaw, parked=True)
                length = float(one.size_wlh[1])
                clash = [stop for start, stop in self._taken[side] if at < stop and at + length > start]
                if clash:
                    at = max(clash) + 0.5
                    if wanted:
                        rare.append(category)
                    continue
                self.actors.append(_moved(one, at + length / 2))
                at += length + rng.uniform(0.7, 2.5)
                if rng.random() < 0.3 and not (rare and at > 0.0):
                    at += rng.uniform(4.0, 22.0) / self._density

    def _lanes(self) -> None:
        """Traffic: each lane keeps its distances, the ego lane those to the ego vehicle."""
        rng = self._rng
        for lateral, way in ((0.0, 1), *self.section.lanes):
            if lateral == 0.0:
                profile = EGO_PROFILE
            else:
                self.profiles.append(random_profile(rng, self._seconds))
                profile = len(self.profiles) - 1
            travelled = self.profiles[profile].at(self._seconds)
            low = -BEHIND_M - (travelled if way > 0 else 0.0)
            high = self._end + AHEAD_M + (travelled if way < 0 else 0.0)
            at = low + rng.uniform(0.0, 15.0)
            while at < high:
                at = self._lane_vehicle(at, lateral, way, profile) + rng.uniform(4.0, 30.0) / self._density

    def _lane_vehicle(self, at: float, lateral: float, way: int, profile: int) -> float:
        """One vehicle, or a truck with its trailer, whose rear is at `at`; returns where the place ends."""
        rng = self._rng
        kinds = (
            ("vehicle.car", 0.66),
            ("vehicle.truck", 0.12),
            ("vehicle.bus.rigid", 0.06),
            ("vehicle.bus.bendy", 0.015),
            ("vehicle.motorcycle", 0.08),
            ("vehicle.trailer", 0.05),
            ("vehicle.construction", 0.015),
        )
        names, shares = zip(*kinds, strict=True)
        category = rng.choice(names, p=np.array(shares) / sum(shares))
        yaw = (0.0 if way > 0 else np.pi) + rng.normal(0, 0.01)
        motion = {"profile": profile, "gain": float(way), "yaw": yaw}
        place = lateral + rng.normal(0, 0.15)
        rider = category == "vehicle.motorcycle"
        train = [actor(rng, category, 0.0, place, rider=rider, **motion)]
        if category == "vehicle.trailer":
            train.append(actor(rng, "vehicle.truck", 0.0, place, **motion))
        if way < 0:
            train.reverse()
        length = sum(float(one.size_wlh[1]) for one in train) + 0.8 * (len(train) - 1)
        if lateral == 0.0 and at < 9.0 and at + length > -6.0:
            return 9.0 + rng.uniform(0.0, 12.0)  # the ego vehicle's own place
        for one in train:
            half = float(one.size_wlh[1]) / 2
            self.actors.append(_moved(one, at + half))
            at += 2 * half + 0.8
        return at

    def _cycle_strips(self) -> None:
        rng = self._rng
        for sign, edge in ((-1.0, self.section.right_lane_edge), (1.0, self.section.left_lane_edge)):
            side = "left" if sign > 0 else "right"
            speed = rng.uniform(2.5, 6.0)
            way = 1.0 if sign < 0 else -1.0
            for at in self._places(38.0, -BEHIND_M, self._end + AHEAD_M):
                passing = [at + way * speed * t for t in (0.0, self._seconds)]
                if any(min(passing) < stop and max(passing) > start for start, stop in self._taken[side]):
                    continue
                category = "vehicle.bicycle" if rng.random() < 0.75 else "vehicle.motorcycle"
                self._add(
                    category,
                    at,
                    edge + sign * (0.5 * CYCLE_M + rng.normal(0, 0.15)),
                    rider=True,
                    speed=way * speed,
                    yaw=0.0 if way > 0 else np.pi,
                )

    def _pavements(self) -> None:
        rng = self._rng
        people = (
            ("human.pedestrian.adult",) * 12
            + ("human.pedestrian.child",) * 2
            + ("human.pedestrian.police_officer",)
        )
        for sign, kerb in ((-1.0, self.section.right_kerb), (1.0, self.section.left_kerb)):
            for at in self._places(6.0, -50.0, self._end + 70.0):
                category = people[rng.integers(len(people))]
                lateral = kerb + sign * rng.uniform(0.8, PAVEMENT_M - 0.4)
                kind = rng.random()
                if kind < 0.6:
                    way = rng.choice((-1.0, 1.0))
                    yaw = 0.0 if way > 0 else np.pi
                    self._add(
                        category,
                        at,
                        lateral,
                        speed=way * rng.uniform(0.7, 1.7),
                        yaw=yaw + rng.normal(0, 0.05),
                    )
                else:
                    self._add(category, at, lateral, yaw=rng.uniform(-np.pi, np.pi), sitting=kind > 0.93)
            for at in self._places(24.0, -40.0, self._end + 60.0):
                category = "vehicle.bicycle" if rng.random() < 0.55 else "vehicle.motorcycle"
                self._add(category, at, kerb + sign * 0.5, yaw=sign * np.pi / 2 + rng.normal(0, 0.3))
        # Each class stands near the start of every scene, however empty the street.
        for category in ("vehicle.bicycle", "vehicle.motorcycle"):
            sign, kerb = ((-1.0, self.section.right_kerb), (1.0, self.section.left_kerb))[rng.integers(2)]
            place = (rng.uniform(4.0, 20.0), kerb + sign * rng.uniform(0.5, 0.9))
            self._add(category, *place, yaw=rng.uniform(-np.pi, np.pi))
        self._crossing()

    def _crossing(self) -> None:
        """People on the road, ahead of where the ego vehicle ends up or behind where it starts."""
        rng = self._rng
        for at in (self._end + rng.uniform(7.0, 14.0), -rng.uniform(8.0, 16.0)):
            for _ in range(rng.integers(1, 4)):
                way = rng.choice((-1.0, 1.0))
                speed = way * rng.uniform(0.8, 1.5)
                start = rng.uniform(-4.0, 4.0) - 0.5 * speed * self._seconds
                self._add(
                    "human.pedestrian.adult",
                    at + rng.uniform(-1.2, 1.2),
                    start,
                    lateral_speed=speed,
                    yaw=way * np.pi / 2,
                )

    def _backdrop(self) -> None:
        rng, add = self._rng, self.actors.append
        for sign, kerb in ((-1.0, self.section.right_kerb), (1.0, self.section.left_kerb)):
            outer = kerb + sign * PAVEMENT_M
            at = -110.0
            while at < self._end + 140.0:
                parts, half = clutter.house(rng)
                yaw = 0.0 if sign > 0 else np.pi
                if rng.random() < 0.6:
                    add(scenery(parts, at + half, outer + sign * rng.uniform(9.0, 20.0), yaw))
                at += 2 * half + rng.uniform(0.5, 14.0)
            for make, gap, near, far in (
                (clutter.tree, 15.0, 0.7, 1.1),
                (clutter.tree, 14.0, 5.0, 14.0),
                (clutter.pole, 16.0, 0.3, 0.6),
                (clutter.bin_or_post, 12.0, 0.4, PAVEMENT_M),
                (clutter.bush, 9.0, PAVEMENT_M, 9.0),
                (clutter.wall, 26.0, 5.0, 6.5),
            ):
                for at in self._places(gap, -80.0, self._end + 100.0):
                    yaw = rng.normal(0, 0.05) + (np.pi if sign < 0 else 0.0)
                    # A pole's arm and a sign's face look to the road.
                    yaw = yaw + np.pi if make is clutter.pole else yaw
                    add(scenery(make(rng), at, kerb + sign * rng.uniform(near, far), yaw))


def _moved(one: Actor, s: float) -> Actor:
    return replace(one, s=s)
