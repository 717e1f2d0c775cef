# ruff: noqa: E741  -- w, l, h are the words of the tables
"""The annotated categories: nuScenes' names, size statistics and how each is built.

Sizes are the dataset's mean width, length and height in metres, varied by a tenth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from synthetic_nuscenes import models, people
from synthetic_nuscenes.parts import Parts

SIZE_SPREAD = 0.1


@dataclass(frozen=True, kw_only=True)
class Category:
    """One category: nuScenes' full name, the mean size, what it is built by and the kind of attribute."""

    name: str
    size_wlh: tuple[float, float, float]
    build: Callable[..., Parts]
    attributes: str  # "vehicle", "pedestrian", "cycle" or ""


def _person(dress: str = "") -> Callable[..., Parts]:
    return lambda rng, w, l, h, sitting=False, **_: people.pedestrian(
        rng, w, l, h, dress=dress, sitting=sitting
    )


def _cycle(motor: bool) -> Callable[..., Parts]:
    return lambda rng, w, l, h, rider=False, **_: people.two_wheeler(rng, w, l, h, motor=motor, rider=rider)


def _plain(build: Callable[..., Parts]) -> Callable[..., Parts]:
    return lambda rng, w, l, h, **_: build(rng, w, l, h)


def _category(name: str, size_wlh: tuple[float, float, float], build, attributes: str = "") -> Category:
    return Category(name=name, size_wlh=size_wlh, build=build, attributes=attributes)


CATEGORIES = {
    category.name: category
    for category in (
        _category("vehicle.car", (1.95, 4.62, 1.73), _plain(models.car), "vehicle"),
        _category("vehicle.truck", (2.51, 6.93, 2.84), _plain(models.truck), "vehicle"),
        _category("vehicle.bus.rigid", (2.94, 10.9, 3.47), _plain(models.bus), "vehicle"),
        _category("vehicle.bus.bendy", (2.94, 17.0, 3.40), _plain(models.bus), "vehicle"),
        _category("vehicle.trailer", (2.90, 12.3, 3.87), _plain(models.trailer), "vehicle"),
        _category("vehicle.construction", (2.73, 6.37, 3.19), _plain(models.construction_vehicle), "vehicle"),
        _category("vehicle.motorcycle", (0.77, 2.11, 1.47), _cycle(motor=True), "cycle"),
        _category("vehicle.bicycle", (0.60, 1.70, 1.28), _cycle(motor=False), "cycle"),
        _category("human.pedestrian.adult", (0.67, 0.73, 1.77), _person(), "pedestrian"),
        _category("human.pedestrian.child", (0.52, 0.55, 1.30), _person(), "pedestrian"),
        _category(
            "human.pedestrian.construction_worker", (0.72, 0.74, 1.77), _person("worker"), "pedestrian"
        ),
        _category("human.pedestrian.police_officer", (0.72, 0.74, 1.80), _person("police"), "pedestrian"),
        _category("movable_object.trafficcone", (0.41, 0.41, 1.07), _plain(models.traffic_cone)),
        _category("movable_object.barrier", (2.53, 0.50, 0.98), _plain(models.barrier)),
    )
}
# A rider makes a cycle taller than the mean over all of them, an empty saddle lower.
HEIGHT_WITH_RIDER = {True: 1.22, False: 0.80}


def random_size(rng: np.random.Generator, name: str, *, rider: bool = False) -> np.ndarray:
    """Width, length, height in metres, rounded to millimetres as in the tables."""
    category = CATEGORIES[name]
    spread = np.clip(rng.normal(0.0, SIZE_SPREAD, 3), -0.25, 0.25)
    size = np.array(category.size_wlh) * (1.0 + spread)
    if category.attributes == "cycle":
        size[2] *= HEIGHT_WITH_RIDER[rider]
    return np.round(size, 3)
