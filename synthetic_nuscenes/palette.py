"""Paints: what colours things of the road come in."""

from __future__ import annotations

import numpy as np

DARK = (0.05, 0.05, 0.06)
WINDOW = (0.07, 0.09, 0.11)
HEADLAMP = (0.95, 0.95, 0.88)
TAILLAMP = (0.6, 0.04, 0.04)
# Paints of vehicles: greys as often as colours, as on the road.
PAINTS = (
    (0.85, 0.85, 0.86),
    (0.62, 0.63, 0.65),
    (0.30, 0.31, 0.33),
    (0.06, 0.06, 0.07),
    (0.48, 0.07, 0.06),
    (0.09, 0.16, 0.40),
    (0.14, 0.30, 0.18),
    (0.72, 0.60, 0.12),
    (0.45, 0.33, 0.22),
    (0.20, 0.42, 0.55),
    (0.70, 0.35, 0.10),
)


def paint(rng: np.random.Generator) -> np.ndarray:
    """A colour of a vehicle or of clothes, linear RGB in [0, 1]."""
    colour = np.array(PAINTS[rng.integers(len(PAINTS))])
    return np.clip(colour * rng.uniform(0.75, 1.2) + rng.normal(0.0, 0.03, 3), 0.02, 0.95)


def skin(rng: np.random.Generator) -> np.ndarray:
    """A colour of skin."""
    return np.array((0.72, 0.50, 0.38)) * rng.uniform(0.35, 1.1)
