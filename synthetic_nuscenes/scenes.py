"""Choosing a scene: one in which every class can be learnt and scored.

A street may hide its only bus behind its only lorry. Scenes are therefore drawn again until the LiDAR has met
each of the ten classes twice, within the range of the devkit's evaluation, in the first keyframes.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.utils import category_to_detection_name

from synthetic_nuscenes.lidar import scan
from synthetic_nuscenes.options import KEYFRAMES_A_SECOND, SyntheticOptions
from synthetic_nuscenes.world import World, draft_world

ATTEMPTS = 12
LOOKED_AT = 4  # keyframes
WANTED = 2
INSIDE_M = 1.0  # so much nearer than the range of the evaluation


@lru_cache(maxsize=2)
def make_world(options: SyntheticOptions, number: int) -> World:
    """Scene `number`: the first attempt that has every class, else the one that has most of them.

    The choice does not look at images, so a scene is the same at every image size.
    """
    best, most = None, -1
    for attempt in range(ATTEMPTS):
        world = draft_world(options, number, attempt)
        met = _classes_met(world, min(LOOKED_AT, options.keyframes))
        if met > most:
            best, most = world, met
        if met == len(_ranges()):
            break
    return best


def _classes_met(world: World, keyframes: int) -> int:
    """How many classes the LiDAR meets often enough in the first keyframes."""
    met: Counter[str] = Counter()
    for number in range(keyframes):
        time_s = number / KEYFRAMES_A_SECOND
        counts, ego, poses = (
            scan(world, time_s, (number,)).counts,
            world.ego_pose(time_s),
            world.poses(time_s),
        )
        distance = np.hypot(poses.x - ego[0], poses.y - ego[1])
        for i in np.flatnonzero(counts > 0).tolist():
            name = category_to_detection_name(world.actors[i].category)
            if name is not None and distance[i] < _ranges()[name] - INSIDE_M:
                met[name] += 1
    return sum(count >= WANTED for count in met.values())


@lru_cache(maxsize=1)
def _ranges() -> dict[str, float]:
    return dict(config_factory("detection_cvpr_2019").class_range)
