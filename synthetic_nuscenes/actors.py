"""One thing of a scene and how it moves along the road."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthetic_nuscenes.categories import CATEGORIES, random_size
from synthetic_nuscenes.parts import Parts

STANDING = 0  # the profile of what follows no lane
EGO_PROFILE = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Actor:
    """A thing at s(t) = s + gain · profile(t) + speed · t, lateral(t) = lateral + lateral_speed · t.

    category is nuScenes' name, empty for clutter, which is never annotated; size_wlh is its box in metres.
    yaw is added to the heading of the road.
    """

    category: str
    size_wlh: np.ndarray
    parts: Parts
    s: float
    lateral: float
    yaw: float = 0.0
    profile: int = STANDING
    gain: float = 0.0
    speed: float = 0.0
    lateral_speed: float = 0.0
    parked: bool = False
    rider: bool = False
    sitting: bool = False


def actor(
    rng: np.random.Generator,
    category: str,
    s: float,
    lateral: float,
    *,
    rider: bool = False,
    sitting: bool = False,
    **motion,
) -> Actor:
    """An annotated thing of random size and looks."""
    size = random_size(rng, category, rider=rider)
    parts = CATEGORIES[category].build(rng, *size, rider=rider, sitting=sitting)
    return Actor(
        category=category,
        size_wlh=size,
        parts=parts,
        s=s,
        lateral=lateral,
        rider=rider,
        sitting=sitting,
        **motion,
    )


def scenery(parts: Parts, s: float, lateral: float, yaw: float = 0.0) -> Actor:
    """A thing that is not annotated; its size is that of its parts."""
    reach = np.abs(parts.centre) + np.abs(np.einsum("nij,nj->ni", np.abs(parts.turn), parts.half))
    low_high = reach.max(axis=0)
    size = np.array((2 * low_high[1], 2 * low_high[0], low_high[2]))
    return Actor(category="", size_wlh=size, parts=parts, s=s, lateral=lateral, yaw=yaw)
