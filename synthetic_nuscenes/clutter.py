"""What stands beside the road and is no object: houses, trees, poles, signs, walls, bins.

None of it is annotated, all of it is rendered and hides what is behind it. Colours are drawn from the same
ranges as those of the objects, so that an orange post need not be a cone and a striped board no barrier.
"""

from __future__ import annotations

import numpy as np

from synthetic_nuscenes.palette import paint
from synthetic_nuscenes.parts import BALL, DRUM, FACADE, LAMP, LEAVES, RIBS, STRIPES, PartBuilder, Parts


def house(rng: np.random.Generator) -> tuple[Parts, float]:
    """A block of flats, an office or a hall, and its half length along the road in metres."""
    b = PartBuilder()
    length, depth, height = rng.uniform(9, 26), rng.uniform(8, 16), rng.uniform(4, 24)
    wall = np.array((0.55, 0.5, 0.44)) * rng.uniform(0.5, 1.5) + rng.normal(0, 0.05, 3)
    wall = np.clip(wall, 0.05, 0.95)
    x, y = (-length / 2, length / 2), (-depth / 2, depth / 2)
    b.block(x, y, (0.0, height), wall, second=(0.08, 0.1, 0.13), texture=FACADE)
    b.block(x, (y[0] - 0.3, y[1] + 0.3), (height, height + 0.4), wall * 0.7)
    for _ in range(rng.integers(0, 3)):
        at = rng.uniform(x[0] + 1, x[1] - 3)
        b.block(
            (at, at + 2.0), (y[0] - 0.5, y[1] + 0.5), (2.4, 3.1), paint(rng), second=paint(rng), texture=RIBS
        )
    return b.build(), length / 2


def tree(rng: np.random.Generator) -> Parts:
    """A trunk and a crown of a few balls."""
    b, trunk = PartBuilder(), rng.uniform(1.6, 3.2)
    crown = np.clip(np.array((0.13, 0.24, 0.07)) * rng.uniform(0.6, 1.6) + rng.normal(0, 0.03, 3), 0.02, 0.8)
    thick = rng.uniform(0.1, 0.25)
    b.add(
        DRUM,
        (0, 0, trunk / 2 + 0.2),
        (thick, thick, trunk / 2 + 0.2),
        (0.2, 0.15, 0.1),
        taper=(0.3, 0, 0),
        texture=LEAVES,
    )
    spread = rng.uniform(1.0, 2.2)
    for _ in range(rng.integers(2, 5)):
        where = rng.normal(0, 0.4 * spread, 3) + np.array((0, 0, trunk + 0.8 * spread))
        b.add(BALL, where, spread * rng.uniform(0.6, 1.0, 3), crown * rng.uniform(0.85, 1.15), texture=LEAVES)
    return b.build()


def bush(rng: np.random.Generator) -> Parts:
    """One or two low balls of leaves."""
    b = PartBuilder()
    for _ in range(rng.integers(1, 3)):
        half = rng.uniform(0.3, 0.9, 3)
        colour = np.clip(np.array((0.15, 0.25, 0.08)) * rng.uniform(0.6, 1.5), 0.02, 0.8)
        b.add(BALL, (*rng.normal(0, 0.3, 2), half[2] * 0.8), half, colour, texture=LEAVES)
    return b.build()


def pole(rng: np.random.Generator) -> Parts:
    """A lamp post, a sign or a traffic light."""
    b, height = PartBuilder(), rng.uniform(2.2, 7.5)
    grey = np.array((0.35, 0.35, 0.36)) * rng.uniform(0.4, 1.6)
    b.add(DRUM, (0, 0, height / 2), (0.07, 0.07, height / 2), grey)
    if height > 5:
        b.block((-0.06, 0.06), (-0.1, 1.8), (height - 0.1, height), grey)
        b.block((-0.15, 0.15), (1.3, 2.1), (height - 0.2, height - 0.1), (0.8, 0.8, 0.75), texture=LAMP)
    elif height > 3.2:
        b.block((-0.18, 0.18), (-0.18, 0.18), (height - 0.9, height), (0.06, 0.07, 0.06))
        lamp = ((0.9, 0.1, 0.05), (0.1, 0.8, 0.3))[rng.integers(2)]
        b.block((-0.2, 0.2), (-0.1, 0.1), (height - 0.4, height - 0.15), lamp, texture=LAMP)
    else:
        size = rng.uniform(0.25, 0.5)
        b.block(
            (-0.03, 0.03),
            (-size, size),
            (height - 2 * size, height),
            paint(rng),
            second=paint(rng),
            texture=STRIPES,
        )
    return b.build()


def bin_or_post(rng: np.random.Generator) -> Parts:
    """A bin, a box, a bollard or a hydrant: as tall as a cone or a child."""
    b, height = PartBuilder(), rng.uniform(0.5, 1.3)
    if rng.random() < 0.5:
        half = rng.uniform(0.2, 0.4, 2)
        b.block(
            (-half[0], half[0]),
            (-half[1], half[1]),
            (0.0, height),
            paint(rng),
            second=paint(rng),
            texture=RIBS,
        )
    else:
        radius = rng.uniform(0.06, 0.2)
        b.add(
            DRUM,
            (0, 0, height / 2),
            (radius, radius, height / 2),
            paint(rng),
            taper=(rng.uniform(0, 0.3), 0, 0),
        )
    return b.build()


def wall(rng: np.random.Generator) -> Parts:
    """A low wall or a hedge along the road."""
    b, length, height = PartBuilder(), rng.uniform(4, 12), rng.uniform(0.6, 2.0)
    if rng.random() < 0.5:
        b.block((-length / 2, length / 2), (-0.4, 0.4), (0, height), (0.14, 0.24, 0.08), texture=LEAVES)
    else:
        b.block(
            (-length / 2, length / 2), (-0.12, 0.12), (0, height), paint(rng), second=paint(rng), texture=RIBS
        )
    return b.build()
