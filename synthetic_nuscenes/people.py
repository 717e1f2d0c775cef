# ruff: noqa: E741  -- w, l, h are the words of the tables
"""People on foot and on two wheels, built as the vehicles are in `models`."""

from __future__ import annotations

import numpy as np

from synthetic_nuscenes.palette import DARK, HEADLAMP, paint, skin
from synthetic_nuscenes.parts import BALL, BANDS, CLOTH, LAMP, PartBuilder, Parts


def pedestrian(
    rng: np.random.Generator, w: float, l: float, h: float, *, dress: str = "", sitting: bool = False
) -> Parts:
    """Legs, trunk, arms and head; `dress` is "", "worker" or "police"."""
    b = PartBuilder()
    top, legs, hair = paint(rng), paint(rng) * 0.7, np.array((0.12, 0.08, 0.05)) * rng.uniform(0.3, 4.0)
    if dress == "worker":
        top, hair = (
            np.array(((0.9, 0.4, 0.05), (0.7, 0.85, 0.1))[rng.integers(2)]),
            np.array((0.85, 0.75, 0.2)),
        )
    if dress == "police":
        top, legs, hair = (
            np.array((0.06, 0.08, 0.2)),
            np.array((0.05, 0.05, 0.1)),
            np.array((0.05, 0.05, 0.12)),
        )
    hip, neck = (0.30 * h, 0.74 * h) if sitting else (0.47 * h, 0.83 * h)
    stride = rng.uniform(-0.28, 0.28) * l
    thick = 0.13 * w
    for side in (-1.0, 1.0):
        y = side * 0.14 * w
        if sitting:
            b.block(
                (-0.1 * l, 0.45 * l), (y - thick, y + thick), (hip - thick, hip + thick), legs, texture=CLOTH
            )
            b.block((0.3 * l, 0.45 * l), (y - thick, y + thick), (0.0, hip), legs, texture=CLOTH)
        else:
            b.beam((side * stride, y, 0.03 * h), (0.0, y, hip + 0.03 * h), 2 * thick, legs, texture=CLOTH)
        b.beam(
            (-0.6 * side * stride, side * 0.37 * w, hip),
            (0.0, side * 0.33 * w, neck - 0.03 * h),
            0.2 * w,
            top,
            texture=CLOTH,
        )
    if sitting:
        b.block(
            (-0.45 * l, 0.3 * l), (-0.5 * w, 0.5 * w), (hip - 0.13 * h, hip - 0.06 * h), (0.3, 0.22, 0.15)
        )
    b.block(
        (-0.20 * l, 0.22 * l),
        (-0.30 * w, 0.30 * w),
        (hip, neck),
        top,
        second=(0.9, 0.9, 0.8) if dress == "worker" else top,
        texture=BANDS if dress == "worker" else CLOTH,
        taper=(0.2, 0.1, -0.12),
    )
    middle = (neck + h) / 2
    b.add(BALL, (0.03 * l, 0, middle), (0.11, 0.09, (h - neck) / 2), skin(rng))
    b.add(BALL, (-0.02 * l, 0, middle + 0.03 * h), (0.12, 0.10, (h - neck) / 2 - 0.03 * h + 0.005), hair)
    if rng.random() < 0.25:
        b.block(
            (-0.42 * l, -0.2 * l),
            (-0.22 * w, 0.22 * w),
            (hip + 0.03 * h, neck - 0.03 * h),
            paint(rng),
            texture=CLOTH,
        )
    return b.build()


def two_wheeler(rng: np.random.Generator, w: float, l: float, h: float, *, motor: bool, rider: bool) -> Parts:
    """Bicycle or motorcycle, with or without the rider, who is part of the box as in nuScenes."""
    b, colour = PartBuilder(), paint(rng)
    bike_h = 0.66 * h if rider else h
    radius = min(0.35, 0.19 * l) if not motor else min(0.33, 0.17 * l)
    rear, front = -l / 2 + radius, l / 2 - radius
    axle, top = radius, bike_h
    if motor:
        for x in (rear, front):
            b.wheel(x, 0.0, radius, 0.16)
        b.block((rear - 0.1, 0.1 * l), (-0.13, 0.13), (0.55 * bike_h, 0.75 * bike_h), colour)
        b.block((-0.1 * l, 0.22 * l), (-0.17, 0.17), (0.25 * bike_h, 0.62 * bike_h), (0.15, 0.15, 0.16))
        b.block(
            (0.02 * l, 0.25 * l), (-0.15, 0.15), (0.6 * bike_h, 0.84 * bike_h), colour, taper=(0.2, 0.4, 0.2)
        )
        b.beam((front, 0, axle), (0.22 * l, 0, top - 0.08), 0.1, DARK)
        b.block((0.27 * l, 0.36 * l), (-0.12, 0.12), (0.68 * bike_h, 0.88 * bike_h), HEADLAMP, texture=LAMP)
    else:
        for x in (rear, front):
            b.add(3, (x, 0.0, radius), (radius, radius, 0.02), DARK, taper=(0.86, 0, 0), turn=_upright())
            b.block((x - 0.05, x + 0.05), (-0.04, 0.04), (radius - 0.05, radius + 0.05), (0.3, 0.3, 0.3))
        seat, head = (-0.12 * l, 0, 0.86 * top), (0.24 * l, 0, 0.9 * top)
        crank = (-0.02 * l, 0, axle)
        for start, end in (
            (seat, crank),
            (seat, head),
            (crank, head),
            (crank, (rear, 0, axle)),
            (seat, (rear, 0, axle)),
            ((front, 0, axle), head),
        ):
            b.beam(start, end, 0.05, colour)
        b.block((-0.2 * l, -0.05 * l), (-0.07, 0.07), (0.86 * top, 0.92 * top), DARK)
    b.block((0.2 * l, 0.24 * l), (-0.48 * w, 0.48 * w), (top - 0.07, top), DARK)
    if rider:
        _rider(b, rng, w, l, h, bike_h)
    return b.build()


def _rider(b: PartBuilder, rng: np.random.Generator, w: float, l: float, h: float, bike_h: float) -> None:
    top, legs = paint(rng), paint(rng) * 0.7
    hip, neck = 0.56 * h, 0.86 * h
    for side in (-1.0, 1.0):
        y = side * 0.14
        b.beam((-0.1 * l, y, hip), (0.08 * l, y, 0.42 * h), 0.15, legs, texture=CLOTH)
        b.beam((0.08 * l, y, 0.42 * h), (0.0, y, 0.14 * h), 0.12, legs, texture=CLOTH)
        b.beam(
            (0.02 * l, 1.6 * y, neck - 0.05 * h), (0.2 * l, 1.6 * y, bike_h - 0.03), 0.1, top, texture=CLOTH
        )
    b.beam((-0.12 * l, 0, hip - 0.02 * h), (0.04 * l, 0, neck), 0.36, top, texture=CLOTH)
    colour = paint(rng) if rng.random() < 0.7 else skin(rng)
    b.add(BALL, (0.08 * l, 0, (neck + h) / 2), (0.13, 0.12, (h - neck) / 2 + 0.01), colour)


def _upright() -> np.ndarray:
    return np.array(((1.0, 0, 0), (0, 0, -1.0), (0, 1.0, 0)))
