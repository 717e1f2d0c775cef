# ruff: noqa: E741  -- w, l, h are the words of the tables
"""What each category looks like: a few solids that fill its box, in random paint.

Every builder takes the random generator and the size (w, l, h) in metres and returns `Parts` in the frame of
the box: x forward, y left, z up from the ground. No part leaves the box by more than a hand's breadth.
"""

from __future__ import annotations

import numpy as np

from synthetic_nuscenes.palette import DARK, HEADLAMP, TAILLAMP, WINDOW, paint
from synthetic_nuscenes.parts import (
    BANDS,
    COACH,
    DRUM,
    GLASS,
    LAMP,
    RIBS,
    STRIPES,
    PartBuilder,
    Parts,
)


def _lamps(b: PartBuilder, length: float, width: float, z: float, size: float) -> None:
    for side in (-1.0, 1.0):
        y = side * (width / 2 - 1.4 * size)
        b.block(
            (length / 2 - 0.06, length / 2 + 0.015),
            (y - size, y + size),
            (z, z + size),
            HEADLAMP,
            texture=LAMP,
        )
        b.block(
            (-length / 2 - 0.015, -length / 2 + 0.06),
            (y - size, y + size),
            (z, z + size),
            TAILLAMP,
            texture=LAMP,
        )


def _wheels(b: PartBuilder, xs, width: float, radius: float, thick: float = 0.22) -> None:
    for x in xs:
        for side in (-1.0, 1.0):
            b.wheel(x, side * (width / 2 - thick / 2 - 0.02), radius, thick)


def car(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """Saloon, estate or small van."""
    b, colour, radius = PartBuilder(), paint(rng), min(0.34, 0.2 * h)
    style = rng.integers(3)
    back, front = ((-0.40, 0.22), (-0.49, 0.24), (-0.49, 0.33))[style]
    slope_back = (0.35, 0.10, 0.04)[style]
    waist = (0.56, 0.56, 0.50)[style] * h
    y = (-0.48 * w, 0.48 * w)
    b.block((-l / 2, l / 2), y, (0.5 * radius, waist), colour, taper=(0.03, 0.02, 0.05))
    cabin = {"taper": (0.38 - 0.1 * style, slope_back, 0.16)}
    b.block(
        (back * l, front * l),
        (-0.46 * w, 0.46 * w),
        (waist, h),
        WINDOW,
        second=colour,
        texture=GLASS,
        **cabin,
    )
    b.block((-0.505 * l, 0.505 * l), (-0.485 * w, 0.485 * w), (0.5 * radius, 0.5 * radius + 0.14), DARK)
    b.block(
        (-l / 2 - 0.015, -l / 2 + 0.03), (-0.26, 0.26), (0.45 * waist, 0.45 * waist + 0.12), (0.8, 0.8, 0.75)
    )
    _wheels(b, (-0.30 * l, 0.31 * l), w, radius)
    _lamps(b, l, w, 0.68 * waist, 0.13)
    for side in (-1.0, 1.0):
        b.block(
            (0.12 * l, 0.15 * l),
            (side * w * 0.5 - 0.05, side * w * 0.5 + 0.05),
            (waist, waist + 0.13),
            colour,
        )
    return b.build()


def truck(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """Cab in front, then a box, a tank, a flat bed or tarpaulin."""
    b, colour, cargo, radius = PartBuilder(), paint(rng), paint(rng), min(0.48, 0.17 * h)
    cab_l = min(2.1, 0.34 * l)
    deck = 1.7 * radius
    cab_h = h * rng.uniform(0.8, 0.98)
    cab = (l / 2 - cab_l, l / 2)
    b.block(cab, (-0.48 * w, 0.48 * w), (0.6 * radius, 0.52 * cab_h), colour)
    b.block(
        cab,
        (-0.47 * w, 0.47 * w),
        (0.52 * cab_h, cab_h),
        WINDOW,
        second=colour,
        texture=GLASS,
        taper=(0.18, 0, 0.06),
    )
    b.block((-l / 2, cab[0]), (-0.3 * w, 0.3 * w), (0.9 * radius, deck), DARK)
    rear = (-l / 2, cab[0] - 0.12)
    style = rng.integers(4)
    if style == 0:
        b.add(
            DRUM,
            ((rear[0] + rear[1]) / 2, 0, (deck + h) / 2),
            ((h - deck) / 2, 0.47 * w, (rear[1] - rear[0]) / 2),
            cargo,
            second=paint(rng),
            texture=BANDS,
            turn=_along_x(),
        )
    elif style == 1:
        b.block(rear, (-w / 2, w / 2), (deck, deck + 0.18), DARK)
        b.block(
            (rear[0], rear[0] + 0.7 * (rear[1] - rear[0])),
            (-0.46 * w, 0.46 * w),
            (deck + 0.18, 0.8 * h),
            cargo,
            second=paint(rng),
            texture=STRIPES,
        )
        b.block((rear[1] - 0.1, rear[1]), (-w / 2, w / 2), (deck, h), DARK)
    else:
        b.block(rear, (-w / 2, w / 2), (deck, h), cargo, second=paint(rng), texture=RIBS)
    _wheels(
        b, (l / 2 - 0.6 * cab_l, -0.36 * l, -0.36 * l + 2.1 * radius)[: 3 if l > 6 else 2], w, radius, 0.3
    )
    _lamps(b, l, w, 0.8 * radius, 0.14)
    return b.build()


def bus(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """City bus; a long one has a joint."""
    b, colour, second, radius = PartBuilder(), paint(rng), paint(rng), 0.48
    y = (-0.49 * w, 0.49 * w)
    joints = [(-l / 2, l / 2)] if l < 14 else [(-l / 2, -0.03 * l), (0.03 * l, l / 2)]
    for x in joints:
        b.block(x, y, (0.35, 0.42 * h), colour, second=second, texture=RIBS)
        b.block(x, y, (0.42 * h, 0.82 * h), WINDOW, second=colour, texture=COACH)
        b.block(x, y, (0.82 * h, h), second, taper=(0.01, 0.01, 0.08))
    if len(joints) > 1:
        b.block(
            (-0.03 * l, 0.03 * l),
            (-0.45 * w, 0.45 * w),
            (0.4, 0.97 * h),
            DARK,
            second=(0.15, 0.15, 0.15),
            texture=RIBS,
        )
    b.block(
        (l / 2 - 0.02, l / 2 + 0.02), (-0.3 * w, 0.3 * w), (0.84 * h, 0.95 * h), (0.9, 0.6, 0.1), texture=LAMP
    )
    _wheels(b, (-0.28 * l, 0.32 * l), w, radius, 0.3)
    _lamps(b, l, w, 0.6, 0.16)
    return b.build()


def trailer(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """Semi-trailer without its truck: a box or a container on a frame, wheels at the back, legs in front."""
    b, radius = PartBuilder(), min(0.5, 0.14 * h)
    deck = 2.1 * radius
    colour, second = paint(rng), paint(rng)
    b.block((-l / 2, l / 2), (-0.25 * w, 0.25 * w), (1.4 * radius, deck), DARK)
    if rng.random() < 0.75:
        b.block((-l / 2, l / 2), (-w / 2, w / 2), (deck, h), colour, second=second, texture=RIBS)
    else:
        b.block((-l / 2, l / 2), (-w / 2, w / 2), (deck, deck + 0.25), DARK)
        b.block(
            (-l / 2 + 0.3, l / 2 - 0.3),
            (-0.47 * w, 0.47 * w),
            (deck + 0.25, h),
            colour,
            second=second,
            texture=STRIPES,
        )
    _wheels(
        b,
        (-0.40 * l, -0.40 * l + 2.2 * radius, -0.40 * l + 4.4 * radius)[: 3 if l > 8 else 2],
        w,
        radius,
        0.4,
    )
    for side in (-1.0, 1.0):
        b.block(
            (0.28 * l, 0.28 * l + 0.15), (side * 0.3 * w - 0.08, side * 0.3 * w + 0.08), (0.0, deck), DARK
        )
        y = side * 0.42 * w
        b.block(
            (-l / 2 - 0.02, -l / 2), (y - 0.12, y + 0.12), (deck - 0.2, deck - 0.05), TAILLAMP, texture=LAMP
        )
    return b.build()


def construction_vehicle(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """Excavator on tracks or loader on wheels."""
    b = PartBuilder()
    colour = np.clip(
        np.array((0.85, 0.55, 0.08)) * rng.uniform(0.6, 1.1) + rng.normal(0, 0.06, 3), 0.03, 0.95
    )
    if rng.random() < 0.2:
        colour = paint(rng)
    if rng.random() < 0.6:
        for side in (-1.0, 1.0):
            b.block(
                (-0.45 * l, 0.25 * l),
                (side * 0.36 * w - 0.14 * w, side * 0.36 * w + 0.14 * w),
                (0.0, 0.26 * h),
                DARK,
                second=(0.18, 0.17, 0.16),
                texture=RIBS,
                taper=(-0.1, -0.1, 0),
            )
        base, reach = 0.26 * h, 0.22
    else:
        _wheels(b, (-0.3 * l, 0.12 * l), w, 0.2 * h, 0.25 * w)
        base, reach = 0.22 * h, 0.2
    b.block((-l / 2, 0.08 * l), (-0.42 * w, 0.42 * w), (base, 0.58 * h), colour, second=DARK, texture=RIBS)
    b.block(
        (-0.2 * l, 0.1 * l),
        (-0.4 * w, 0.06 * w),
        (0.58 * h, h),
        WINDOW,
        second=colour,
        texture=GLASS,
        taper=(0.1, 0, 0.05),
    )
    b.beam((0.02 * l, -0.2 * w, 0.5 * h), (reach * l, -0.2 * w, 0.95 * h), 0.13 * h, colour)
    b.beam((reach * l, -0.2 * w, 0.95 * h), (0.44 * l, -0.2 * w, 0.45 * h), 0.10 * h, colour)
    b.beam((0.44 * l, -0.2 * w, 0.5 * h), (0.43 * l, -0.2 * w, 0.2 * h), 0.06 * h, DARK)
    b.block((0.34 * l, 0.5 * l), (-0.45 * w, 0.1 * w), (0.02, 0.28 * h), DARK, taper=(0.0, 0.5, 0.0))
    return b.build()


def traffic_cone(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """Cone or post with a light band on a square foot."""
    b = PartBuilder()
    colour = np.clip(np.array((0.9, 0.28, 0.05)) * rng.uniform(0.6, 1.05) + rng.normal(0, 0.04, 3), 0.02, 1.0)
    if rng.random() < 0.15:
        colour = np.array(((0.85, 0.75, 0.1), (0.15, 0.4, 0.2))[rng.integers(2)])
    b.block((-l / 2, l / 2), (-w / 2, w / 2), (0.0, 0.06 * h), colour * 0.5)
    thin = rng.uniform(0.65, 0.9)
    b.add(
        DRUM,
        (0, 0, 0.53 * h),
        (0.4 * l, 0.4 * w, 0.47 * h),
        colour,
        second=(0.85, 0.85, 0.85),
        texture=BANDS,
        taper=(thin, 0, 0),
    )
    return b.build()


def barrier(rng: np.random.Generator, w: float, l: float, h: float) -> Parts:
    """Jersey barrier, striped boards on feet, or a crowd fence; wide along y, thin along x."""
    b, style = PartBuilder(), rng.integers(3)
    light = np.array((0.82, 0.82, 0.8)) * rng.uniform(0.7, 1.1)
    strong = np.array(
        ((0.8, 0.12, 0.08), (0.9, 0.42, 0.08), (0.5, 0.5, 0.48))[rng.integers(3)]
    ) * rng.uniform(0.7, 1.1)
    if style == 0:
        b.block(
            (-l / 2, l / 2),
            (-w / 2, w / 2),
            (0.0, 0.35 * h),
            strong,
            second=light,
            texture=RIBS,
            taper=(0.35, 0.35, 0),
        )
        b.block(
            (-0.3 * l, 0.3 * l),
            (-w / 2, w / 2),
            (0.35 * h, h),
            strong,
            second=light,
            texture=RIBS,
            taper=(0.4, 0.4, 0),
        )
        return b.build()
    for side in (-1.0, 1.0):
        y = side * (w / 2 - 0.06)
        b.block((-l / 2, l / 2), (y - 0.06, y + 0.06), (0.0, 0.08), DARK)
        b.block((-0.05, 0.05), (y - 0.05, y + 0.05), (0.0, h), (0.3, 0.3, 0.3))
    boards = (
        ((0.62, 0.98), (0.2, 0.5))
        if style == 1
        else ((0.9, 0.98), (0.7, 0.75), (0.5, 0.55), (0.3, 0.35), (0.1, 0.15))
    )
    for low, high in boards:
        b.block((-0.06, 0.06), (-w / 2, w / 2), (low * h, high * h), strong, second=light, texture=STRIPES)
    return b.build()


def _along_x() -> np.ndarray:
    return np.array(((0, 0, 1.0), (0, 1.0, 0), (-1.0, 0, 0)))
