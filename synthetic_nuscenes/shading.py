"""The colour of every pixel that hits a part: texture, light and shade. H hit pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from synthetic_nuscenes.look import GRAIN, Look
from synthetic_nuscenes.parts import (
    BANDS,
    BLOCK,
    CLOTH,
    COACH,
    DRUM,
    FACADE,
    GLASS,
    LAMP,
    LEAVES,
    RIBS,
    STRIPES,
    TYRE,
)
from synthetic_nuscenes.raycast import Hits, Targets
from synthetic_nuscenes.view import Placed

FINE_M = 35.0  # textures finer than a pixel fade out beyond about this distance
FLAT = 3  # the axis of a surface that is no face of a block


def shade(
    look: Look, placed: Placed, targets: Targets, hits: Hits, pixels: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    """(H, 3) float32 linear colours of the hit `pixels`; `placed` holds the parts of `targets`, in order."""
    part, t = hits.part[pixels], hits.t[pixels]
    parts = placed.parts
    kind, texture = parts.kind[part], parts.texture[part]
    half, taper = _columns(parts.half, part), _columns(parts.taper, part)
    unit = _unit_hits(targets, part, t, rays[:, pixels])
    normal, axis = _normals(unit, half, kind, taper)
    colour = _texture(look, placed, part, texture, unit, unit * half, axis, t)
    to_sun = _columns(np.einsum("nij,i->nj", placed.turn, look.sun), part)
    up = _columns(placed.turn[:, 2, :], part)
    upward = _dot(normal, up)
    lambert = np.maximum(_dot(normal, to_sun), 0.0)
    light = look.ambient * (0.62 + 0.38 * upward) + look.sun_strength * 0.75 * lambert
    light[texture == LAMP] = 1.0
    colour *= light
    shiny = np.flatnonzero((texture == GLASS) | (texture == COACH))
    if len(shiny):
        # Glass shows the sky the more, the more it leans back.
        mirror = np.clip(0.08 + 0.5 * upward[shiny], 0.05, 0.5)
        colour[:, shiny] += mirror * (0.6 * look.haze[:, None])
    return colour.T


def _columns(table: np.ndarray, part: np.ndarray) -> np.ndarray:
    """(3, H) float32 from a table (P, 3): one contiguous row a component is what makes this fast."""
    return np.take(np.ascontiguousarray(table.T, dtype=np.float32), part, axis=1)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit_hits(targets: Targets, part: np.ndarray, t: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """(3, H): where the rays (3, H) meet their parts, in the unit frames."""
    unit = _columns(targets.origin, part)
    for axis in range(3):
        unit[axis] += t * _dot(_columns(targets.to_part[:, axis], part), rays)
    return unit


def _normals(unit: np.ndarray, half: np.ndarray, kind: np.ndarray, taper: np.ndarray):
    """Unit normals (3, H) in the frames of the parts, and the axis (H,) of the face of a block."""
    magnitude = np.abs(unit)
    # A leaning face is where the share of the narrowed size is 1.
    rise = 0.5 * (unit[2] + 1.0)
    along = np.where(unit[0] > 0, taper[0], taper[1])
    x, y, z = magnitude[0] + along * rise, magnitude[1] + taper[2] * rise, magnitude[2]
    axis = np.where(x > y, np.where(x > z, 0, 2), np.where(y > z, 1, 2)).astype(np.int8)
    normal = np.zeros_like(unit)
    for i, lean in ((0, along), (1, taper[2]), (2, None)):
        face = axis == i
        normal[i] = np.where(face, np.sign(unit[i]), 0.0)
        if lean is not None:
            normal[2] += np.where(face, 0.5 * lean * half[i] / half[2], 0.0)
    round_ones = np.flatnonzero(kind != BLOCK)
    if len(round_ones):
        normal[:, round_ones], axis[round_ones] = _round_normals(
            unit[:, round_ones], half[:, round_ones], kind[round_ones], taper[0, round_ones]
        )
    return normal / np.maximum(np.sqrt(_dot(normal, normal)), 1e-6), axis


def _round_normals(unit: np.ndarray, half: np.ndarray, kind: np.ndarray, thinner: np.ndarray):
    normal = unit / half
    drum = kind == DRUM
    end = drum & (np.abs(unit[2]) > 0.995)
    normal[2] = np.where(drum, 0.5 * thinner / half[2], normal[2])
    flat = end | (kind > DRUM)
    normal[:2, flat] = 0.0
    normal[2, flat] = np.where(end[flat], np.sign(unit[2, flat]), 1.0)
    return normal, np.where(end, 2, FLAT).astype(np.int8)


def _texture(look: Look, placed: Placed, part, texture, unit, metres, axis, t) -> np.ndarray:
    """(3, H): the paint before any light falls on it."""
    colour = _columns(placed.parts.colour, part)
    second = placed.parts.second.T
    fade = np.clip(1.5 - t / FINE_M, 0.0, 1.0)
    # Where along the surface a point lies: horizontally and upwards, whichever face it is on.
    across = np.where(axis == 0, metres[1], metres[0])
    upward = np.where(axis == 2, metres[1], metres[2])
    grain = look.grain[
        np.int32(across * 25 + part * 31) & (GRAIN - 1), np.int32(upward * 25 + part * 57) & (GRAIN - 1)
    ]
    for kind in np.unique(texture).tolist():
        at = np.flatnonzero(texture == kind)
        rough = {LEAVES: 0.8 * (0.4 + 0.6 * fade[at]), CLOTH: 0.2 * fade[at], LAMP: 0.0}.get(kind, 0.09)
        piece = np.take(colour, at, axis=1) * (1.0 + rough * grain[at])
        where = Surface(across[at], upward[at], unit[0, at], unit[1, at], unit[2, at], axis[at], fade[at])
        amount, tint = _pattern(kind, where), np.take(second, part[at], axis=1)
        if amount is not None:
            piece += amount * (tint - piece)
        if kind == FACADE:
            lit = look.grain[
                np.int32(where.across / 2.6 + part[at]) & (GRAIN - 1),
                np.int32(where.upward / 3.0 + 60) & (GRAIN - 1),
            ]
            piece += (amount > 0) * np.clip(lit, 0, 0.5) * (look.haze[:, None] - piece)
        colour[:, at] = piece
    return np.clip(colour, 0.0, 1.2)


@dataclass(frozen=True, eq=False)
class Surface:
    """Points of one texture: across and upward in metres, x y z in the unit solid, face, detail left."""

    across: np.ndarray
    upward: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    axis: np.ndarray
    fade: np.ndarray


def _pattern(texture: int, at: Surface) -> np.ndarray | None:
    """How much of the second colour each point shows, 0 to 1; None where the texture has no second colour."""
    if texture == GLASS:
        pillar = (np.abs(at.x - 0.05) < 0.06) & (at.axis == 1)
        return ((np.abs(at.z) > 0.86) | pillar | (at.axis == 2)).astype(np.float32)
    if texture == COACH:
        return 0.9 * ((np.abs(at.z) > 0.9) | (np.mod(at.across, 1.5) < 0.12))
    if texture == STRIPES:
        return (np.mod(at.across + at.upward, 0.6) < 0.3) * at.fade + 0.5 * (1 - at.fade)
    if texture == BANDS:
        return 0.9 * (np.abs(at.z - 0.2) < 0.28) + 0.6 * (np.abs(at.z + 0.6) < 0.1)
    if texture == RIBS:
        panel = (np.abs(at.x) < 0.55) & (np.abs(at.z) < 0.35) & (at.axis == 1)
        return np.where(panel, 0.7, 0.25 * (np.mod(at.across, 0.55) < 0.12) * at.fade)
    if texture == FACADE:
        window = (np.mod(at.across + 0.4, 2.6) < 1.3) & (np.mod(at.upward + 0.7, 3.0) < 1.6)
        return 0.85 * (window & (at.axis != 2))
    if texture == TYRE:
        return ((at.x**2 + at.y**2 < 0.36) & (at.axis == 2)).astype(np.float32)
    return None
