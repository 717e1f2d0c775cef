"""The solids everything is built of, and arrays of them.

A part is a solid in the frame of its owner (x forward, y left, z up, origin on the ground below the middle):
its unit solid lives in [-1, 1]³, is stretched by `half`, turned by `turn` and moved to `centre`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

BLOCK, BALL, DRUM, RING = range(4)  # box with slanted sides, ellipsoid, cone along z, ring in the xy plane
PAINT, GLASS, STRIPES, BANDS, FACADE, LEAVES, RIBS, COACH, TYRE, CLOTH, LAMP = range(11)


@dataclass(frozen=True, eq=False)
class Parts:
    """n parts: kind (n,), centre, half (n, 3), turn (n, 3, 3), taper (n, 3), colours (n, 3), texture, owner.

    taper of a BLOCK: how far the top is drawn in at the front, the back and the sides, as a share of the
    half size; of a DRUM: [0] is how much thinner the top is; of a RING: [0] is the inner radius.
    """

    kind: np.ndarray
    centre: np.ndarray
    half: np.ndarray
    turn: np.ndarray
    taper: np.ndarray
    colour: np.ndarray
    second: np.ndarray
    texture: np.ndarray
    owner: np.ndarray

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, which: np.ndarray) -> Parts:
        """The parts at these positions."""
        return Parts(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    def owned_by(self, owner: int) -> Parts:
        """The same parts with another owner."""
        return replace(self, owner=np.full(len(self), owner, dtype=np.int32))

    @staticmethod
    def joined(several: Sequence[Parts]) -> Parts:
        """All of them, one after the other."""
        return Parts(
            **{
                field.name: np.concatenate([getattr(one, field.name) for one in several])
                for field in fields(Parts)
            }
        )


def tilt(about: str, angle_rad: float) -> np.ndarray:
    """Rotation (3, 3) about one axis, right-handed."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    rows = {
        "x": ((1, 0, 0), (0, c, -s), (0, s, c)),
        "y": ((c, 0, s), (0, 1, 0), (-s, 0, c)),
        "z": ((c, -s, 0), (s, c, 0), (0, 0, 1)),
    }
    return np.array(rows[about], dtype=np.float64)


class PartBuilder:
    """Collects the parts of one thing; `build` makes the arrays."""

    def __init__(self) -> None:
        self._rows: list[tuple] = []

    def add(
        self,
        kind: int,
        centre,
        half,
        colour,
        *,
        second=None,
        texture: int = PAINT,
        taper=(0.0, 0.0, 0.0),
        turn: np.ndarray | None = None,
    ) -> None:
        """One part, all lengths in metres."""
        turn = np.eye(3) if turn is None else turn
        second = colour if second is None else second
        self._rows.append((kind, centre, half, turn, taper, colour, second, texture))

    def block(self, x, y, z, colour, **rest) -> None:
        """A box from its extents: three (low, high) pairs in metres."""
        low, high = np.array([x, y, z], dtype=np.float64).T
        self.add(BLOCK, (low + high) / 2, np.maximum((high - low) / 2, 0.005), colour, **rest)

    def wheel(self, x: float, y: float, radius: float, width: float, rim=(0.45, 0.45, 0.47)) -> None:
        """A tyre standing on the ground, its axle along y."""
        self.add(
            DRUM,
            (x, y, radius),
            (radius, radius, width / 2),
            (0.04, 0.04, 0.045),
            second=rim,
            texture=TYRE,
            turn=tilt("x", np.pi / 2),
        )

    def beam(self, start, end, thickness: float, colour, **rest) -> None:
        """A bar between two points of the xz plane given as (x, y, z); y of the start is used."""
        start, end = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        along = end - start
        angle = -np.arctan2(along[2], along[0])
        half = (np.hypot(along[0], along[2]) / 2, thickness / 2, thickness / 2)
        self.add(BLOCK, (start + end) / 2, half, colour, turn=tilt("y", angle), **rest)

    def build(self) -> Parts:
        """The arrays; owner is 0 throughout."""
        kind, centre, half, turn, taper, colour, second, texture = zip(*self._rows, strict=True)
        as_float = [np.array(column, dtype=np.float64) for column in (centre, half, turn, taper)]
        colours = [np.array(column, dtype=np.float32) for column in (colour, second)]
        return Parts(
            np.array(kind, dtype=np.int8),
            *as_float,
            *colours,
            np.array(texture, dtype=np.int8),
            np.zeros(len(kind), dtype=np.int32),
        )
