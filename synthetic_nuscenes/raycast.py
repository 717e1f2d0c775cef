"""Rays against parts: which part each ray meets first, and which rays each owner would meet alone.

A ray is origin + t · direction. The direction of ray r in the frame of part p, stretched so that the part is
its unit solid, is linear in three numbers of the ray: (u, v, 1) of a pixel, or the direction itself. So each
part needs one 3×3 matrix, and each (ray, part) pair nine multiplications; only the pairs inside a part's
bounding rectangle are made. Everything is float32.

Shapes: P parts in view, R rays, K pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from synthetic_nuscenes.parts import BALL, BLOCK, DRUM, RING

PAIRS_AT_ONCE = 200_000
NOTHING = -1
NEAREST_M = 0.3


@dataclass(frozen=True, eq=False)
class Targets:
    """The parts as the rays of one sensor see them.

    to_part (P, 3, 3): ray numbers to direction in the unit frame; origin (P, 3): the sensor in the unit
    frame; rows and columns (P, 2): first and one past the last of the rectangle, columns modulo the width.
    """

    kind: np.ndarray
    taper: np.ndarray
    owner: np.ndarray
    to_part: np.ndarray
    origin: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True, eq=False)
class Hits:
    """Nearest hits: `part` (R,) position in the targets or NOTHING, `t` (R,), inf where nothing is met.

    owners: the owners that have parts in view; shown and alone (n,): rays that meet the owner first, and
    rays that would meet it if nothing else were there.
    """

    part: np.ndarray
    t: np.ndarray
    owners: np.ndarray
    shown: np.ndarray
    alone: np.ndarray


def cast(targets: Targets, rays: np.ndarray, width: int) -> Hits:
    """Cast the rays (3, R), laid out in rows of `width`, against the targets."""
    nearest = np.full(rays.shape[1], np.inf, dtype=np.float32)
    part_of = np.full(rays.shape[1], NOTHING, dtype=np.int32)
    owners = np.unique(targets.owner)
    alone = np.zeros(len(owners), dtype=np.int64)
    signed = np.empty(rays.shape[1], dtype=np.int32)
    found = []
    counts = np.diff(targets.rows)[:, 0] * np.diff(targets.columns)[:, 0]
    for kind, intersect in ((BLOCK, _block), (BALL, _ball), (DRUM, _drum), (RING, _ring)):
        for chosen in _chunks(np.flatnonzero((targets.kind == kind) & (counts > 0)), counts):
            ray, pair_part = _pairs(targets, chosen, counts[chosen], width)
            direction = _directions(targets, chosen, counts[chosen], np.take(rays, ray, axis=1))
            t = intersect(
                _spread(targets.origin[chosen], counts[chosen]),
                direction,
                _spread(targets.taper[chosen], counts[chosen]),
            )
            hit = np.flatnonzero(t > NEAREST_M)
            found.append((ray[hit], pair_part[hit], t[hit]))
    for ray, _, t in found:
        np.minimum.at(nearest, ray, t)
    rays_of: dict[int, list[np.ndarray]] = {}
    for ray, pair_part, t in found:
        wins = t == nearest[ray]
        part_of[ray[wins]] = pair_part[wins]
        # Pairs come part by part, and the parts of one owner stay together.
        owner = targets.owner[pair_part]
        edges = (0, *(np.flatnonzero(np.diff(owner)) + 1), len(ray))
        for start, stop in pairwise(edges):
            if stop > start:
                rays_of.setdefault(int(owner[start]), []).append(ray[start:stop])
    for i, one in enumerate(owners.tolist()):
        if one in rays_of:
            # Distinct rays: of those that occur several times, only the last to sign keeps its signature.
            touched = np.concatenate(rays_of[one])
            signature = np.arange(len(touched), dtype=np.int32)
            signed[touched] = signature
            alone[i] = np.count_nonzero(signed[touched] == signature)
    seen = targets.owner[part_of[part_of >= 0]]
    shown = np.bincount(np.searchsorted(owners, seen), minlength=len(owners))
    return Hits(part=part_of, t=nearest, owners=owners, shown=shown, alone=alone)


def _chunks(positions: np.ndarray, counts: np.ndarray) -> Iterator[np.ndarray]:
    """The positions in groups of about PAIRS_AT_ONCE pairs: what fits into the processor's cache."""
    if len(positions) == 0:
        return
    group = np.cumsum(counts[positions]) // PAIRS_AT_ONCE
    yield from np.split(positions, np.flatnonzero(np.diff(group)) + 1)


def _pairs(targets: Targets, chosen: np.ndarray, counts: np.ndarray, width: int):
    """Ray number and target position of every pair: the rectangles of the chosen parts, one by one."""
    rays, numbers = [], np.arange(max(int(targets.rows.max()), width), dtype=np.int32)
    for (top, bottom), (left, right) in zip(
        targets.rows[chosen].tolist(), targets.columns[chosen].tolist(), strict=True
    ):
        columns = numbers[left:right] if left >= 0 and right <= width else np.arange(left, right) % width
        rays.append((numbers[top:bottom, None] * width + columns).ravel())
    return np.concatenate(rays), np.repeat(chosen.astype(np.int32), counts)


def _spread(table: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(3, K) from one row (3,) a part: each repeated for its pairs."""
    return np.stack([np.repeat(column, counts) for column in table.T])


def _directions(targets: Targets, chosen: np.ndarray, counts: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(3, K): directions in the unit frames."""
    direction = np.empty((3, rays.shape[1]), dtype=np.float32)
    for axis in range(3):
        a, b, c = _spread(targets.to_part[chosen, axis], counts)
        direction[axis] = a * rays[0] + b * rays[1] + c * rays[2]
    return direction


def _block(o: np.ndarray, d: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """Entry into a box whose sides lean: each face is a half-space, linear along the ray."""
    enter = np.full(o.shape[1], -np.inf, dtype=np.float32)
    leave = np.full(o.shape[1], np.inf, dtype=np.float32)
    faces = ((0, 1.0, 0), (0, -1.0, 1), (1, 1.0, 2), (1, -1.0, 2), (2, 1.0, None), (2, -1.0, None))
    height = o[2] + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis, sign, lean in faces:
            outside, growth = sign * o[axis] - 1.0, sign * d[axis]
            if lean is not None:
                half_lean = 0.5 * taper[lean]
                outside, growth = outside + half_lean * height, growth + half_lean * d[2]
            at = -outside / growth
            np.maximum(enter, np.where(growth < 0, at, -np.inf), out=enter)
            np.minimum(leave, np.where(growth > 0, at, np.inf), out=leave)
    return np.where(enter < leave, enter, np.float32(-1.0))


def _ball(o: np.ndarray, d: np.ndarray, taper: np.ndarray) -> np.ndarray:
    a, b, c = (d * d).sum(0), (o * d).sum(0), (o * o).sum(0) - 1.0
    root = b * b - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.float32(-1.0))


def _drum(o: np.ndarray, d: np.ndarray, taper: np.ndarray) -> np.ndarray:
    """Entry into a cone cut at z = ±1, radius 1 below and 1 - taper above: the mantle or an end."""
    slope = 0.5 * taper[0]
    radius_o, radius_d = 1.0 - slope * (o[2] + 1.0), -slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - radius_d * radius_d
    b = o[0] * d[0] + o[1] * d[1] - radius_o * radius_d
    c = o[0] * o[0] + o[1] * o[1] - radius_o * radius_o
    root = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore"):
        mantle = (-b - np.sqrt(np.maximum(root, 0))) / a
        on_mantle = (root > 0) & (a > 0) & (np.abs(o[2] + mantle * d[2]) <= 1.0)
        end = (-np.sign(d[2]) - o[2]) / d[2]
        x, y, z = o[0] + end * d[0], o[1] + end * d[1], o[2] + end * d[2]
        on_end = x * x + y * y <= (1.0 - slope * (z + 1.0)) ** 2
    return np.where(on_mantle, mantle, np.where(on_end, end, np.float32(-1.0)))


def _ring(o: np.ndarray, d: np.ndarray, taper: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        at = -o[2] / d[2]
        x, y = o[0] + at * d[0], o[1] + at * d[1]
        distance = x * x + y * y
    return np.where((distance <= 1.0) & (distance >= taper[0] * taper[0]), at, np.float32(-1.0))
