"""The colour of every pixel that hits a part: texture, light and shade. H hit pixels."""

from __future__ import annotations

import numpy as np

from camera3d.data.synthetic.look import GRAIN, Look
from camera3d.data.synthetic.parts import (
    BALL,
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
from camera3d.data.synthetic.raycast import Hits, Targets
from camera3d.data.synthetic.view import Placed

FINE_M = 35.0  # textures finer than a pixel fade out beyond about this distance


def shade(
    look: Look, placed: Placed, targets: Targets, hits: Hits, pixels: np.ndarray, rays: np.ndarray
) -> np.ndarray:
    """(H, 3) float32 linear colours of the hit `pixels`; `placed` holds the parts of `targets`, in order."""
    part, t = hits.part[pixels], hits.t[pixels]
    matrix = targets.to_part[part]
    ray = rays[pixels]
    unit = targets.origin[part] + t[:, None] * (
        matrix[:, :, 0] * ray[:, :1] + matrix[:, :, 1] * ray[:, 1:2] + matrix[:, :, 2] * ray[:, 2:3]
    )
    half = placed.parts.half.astype(np.float32)[part]
    metres = unit * half
    kind, texture = placed.parts.kind[part], placed.parts.texture[part]
    normal, axis = _normals(unit, half, kind, placed.parts.taper.astype(np.float32)[part])
    colour = _texture(look, placed, part, texture, unit, metres, axis, t)
    to_sun = np.einsum("nij,i->nj", placed.turn, look.sun).astype(np.float32)[part]
    up = placed.turn[:, 2, :].astype(np.float32)[part]
    lambert = np.maximum((normal * to_sun).sum(1), 0.0)
    sky_light = 0.62 + 0.38 * (normal * up).sum(1)
    light = look.ambient * sky_light + look.sun_strength * 0.75 * lambert
    shiny = (texture == GLASS) | (texture == COACH)
    light = np.where(texture == LAMP, 1.0, light)
    colour *= light[:, None]
    if shiny.any():
        # Glass shows the sky the more, the more it leans back.
        mirror = np.clip(0.08 + 0.5 * (normal[shiny] * up[shiny]).sum(1), 0.05, 0.5)
        colour[shiny] += mirror[:, None] * look.haze * 0.6
    return colour


def _normals(unit: np.ndarray, half: np.ndarray, kind: np.ndarray, taper: np.ndarray):
    """Unit normals (H, 3) in the frames of the parts, and the axis (H,) of the face of a block."""
    magnitude = np.abs(unit)
    # A leaning face is where the share of the narrowed size is 1.
    rise = 0.5 * (unit[:, 2] + 1.0)
    along = np.where(unit[:, 0] > 0, taper[:, 0], taper[:, 1])
    magnitude[:, 0] += along * rise
    magnitude[:, 1] += taper[:, 2] * rise
    axis = np.where(kind == BLOCK, magnitude.argmax(1), 3)
    normal = np.zeros_like(unit)
    for i in range(3):
        face = axis == i
        normal[face, i] = np.sign(unit[face, i])
        if i < 2:
            lean = along[face] if i == 0 else taper[face, 2]
            normal[face, 2] = 0.5 * lean * half[face, i] / half[face, 2]
    ball, drum = kind == BALL, kind == DRUM
    normal[ball] = unit[ball] / half[ball]
    end = drum & (magnitude[:, 2] > 0.995)
    mantle = drum & ~end
    normal[mantle] = unit[mantle] / half[mantle]
    normal[mantle, 2] = 0.5 * taper[mantle, 0] / half[mantle, 2]
    normal[end, 2] = np.sign(unit[end, 2])
    flat = kind > DRUM
    normal[flat, 2] = 1.0
    axis[end] = 2
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6), axis


def _texture(look: Look, placed: Placed, part, texture, unit, metres, axis, t) -> np.ndarray:
    first, second = placed.parts.colour[part], placed.parts.second[part]
    colour = first.copy()
    fade = np.clip(1.5 - t / FINE_M, 0.0, 1.0)
    # Where along the surface a point lies: horizontally and upwards, whichever face it is on.
    across = np.where(axis == 0, metres[:, 1], metres[:, 0])
    upward = np.where(axis == 2, metres[:, 1], metres[:, 2])
    grain = look.grain[
        (np.int32(across * 25 + 0.31 * part * 97)) % GRAIN, (np.int32(upward * 25 + part * 31)) % GRAIN
    ]
    present = np.unique(texture)

    def mix(which: np.ndarray, amount: np.ndarray, to: np.ndarray) -> None:
        colour[which] += amount[:, None] * (to - colour[which])

    for kind in present.tolist():
        at = np.flatnonzero(texture == kind)
        u, v, a, b, f = across[at], upward[at], unit[at, 0], unit[at, 2], fade[at]
        if kind == GLASS:
            frame = (np.abs(b) > 0.86) | ((np.abs(a - 0.05) < 0.06) & (axis[at] == 1)) | (axis[at] == 2)
            mix(at, frame.astype(np.float32), second[at])
        elif kind == COACH:
            frame = (np.abs(b) > 0.9) | (np.mod(u, 1.5) < 0.12)
            mix(at, frame * 0.9, second[at])
        elif kind == STRIPES:
            stripe = np.mod(u + v, 0.6) < 0.3
            mix(at, stripe * f + 0.5 * (1 - f), second[at])
        elif kind == BANDS:
            band = np.where(np.abs(b - 0.2) < 0.28, 0.9, 0.0) + np.where(np.abs(b + 0.6) < 0.1, 0.6, 0.0)
            mix(at, band, second[at])
        elif kind == RIBS:
            mix(at, 0.22 * (np.mod(u, 0.55) < 0.12) * f, np.zeros(3, np.float32))
            panel = (np.abs(a) < 0.55) & (np.abs(b) < 0.35) & (axis[at] == 1)
            mix(at, panel * 0.7, second[at])
        elif kind == FACADE:
            window = (np.mod(u + 0.4, 2.6) < 1.3) & (np.mod(v + 0.7, 3.0) < 1.6) & (axis[at] != 2)
            mix(at, window * 0.85, second[at])
            lit = look.grain[np.int32(u / 2.6 + part[at]) % GRAIN, np.int32(v / 3.0 + 60) % GRAIN]
            mix(at, window * np.clip(lit, 0, 0.5), look.haze)
        elif kind == TYRE:
            hub = (unit[at, 0] ** 2 + unit[at, 1] ** 2 < 0.36) & (axis[at] == 2)
            mix(at, hub.astype(np.float32), second[at])
        elif kind == LEAVES:
            colour[at] *= (1.0 + 0.8 * grain[at] * (0.4 + 0.6 * f))[:, None]
        elif kind == CLOTH:
            colour[at] *= (1.0 + 0.2 * grain[at] * f)[:, None]
        if kind not in (LEAVES, CLOTH, LAMP):
            # Dirt: everything is a little uneven, and darker towards the ground.
            colour[at] *= (1.0 + 0.09 * grain[at])[:, None]
    return np.clip(colour, 0.0, 1.2)
