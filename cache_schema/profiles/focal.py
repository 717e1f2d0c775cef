"""Profile `focal`: of every map the areas that matter over a coarse background, and the confident queries.

Of a map `m` the cells inside the sample's areas, ragged (`m_cells`, `m_scale`), which cells those are
(`m_mask`), and the whole map in coarse blocks (`m_background`, `m_background_scale`); of the arrays about
queries the confident ones, ragged, and which queries those are (`query_confident`); the others as they are.

Shapes: N cameras, C channels, H W cells of a map, K kept cells, Q object queries, n confident ones, L layers.
A BEV map has no camera dimension; (N,) below is then left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cache_schema.array_spec import CONFIDENT_DIMENSION, PACKING, QUERY, QUERY_DIMENSION, ArraySpec
from cache_schema.errors import Problem
from cache_schema.profiles.encoding import Arrays, mismatch, mismatches, packing, ragged
from cache_schema.quantise import dequantise, quantise, quantise_rows

CONFIDENT_ARRAY = "query_confident"
MAP_PARTS = ("cells", "scale", "mask", "background", "background_scale")


def stored_arrays(arrays: Sequence[ArraySpec], background_block: int) -> tuple[ArraySpec, ...]:
    """The arrays on disk.

    Args:
        background_block: side of a background block in map cells.
    """
    stored: list[ArraySpec] = []
    for array in arrays:
        if array.is_map:
            stored += _parts(array, background_block)
        else:
            stored.append(_confident_rows(array) if array.role == QUERY else array)
    per_query = next((array for array in arrays if array.role == QUERY), None)
    if per_query is not None:
        n_queries = per_query.shape[per_query.query_axis]
        stored.append(packing(CONFIDENT_ARRAY, "bool", (n_queries,), (QUERY_DIMENSION,)))
    return tuple(stored)


def stored_names(array: ArraySpec) -> tuple[str, ...]:
    """The stored arrays that hold one of the teacher's."""
    if array.is_map:
        return tuple(f"{array.name}_{part}" for part in MAP_PARTS)
    return (array.name, CONFIDENT_ARRAY) if array.role == QUERY else (array.name,)


def links(arrays: Sequence[ArraySpec], background_block: int) -> dict[str, dict[str, Any]]:
    """Attributes of the parts of every map and of the query arrays: how they go together."""
    found: dict[str, dict[str, Any]] = {}
    for array in arrays:
        if array.is_map:
            found |= _links_of_map(array, background_block)
        elif array.role == QUERY:
            found[array.name] = {
                "rows_from": CONFIDENT_ARRAY,
                "rows_rule": f"a row for each true value of {CONFIDENT_ARRAY}, in that order",
            }
            found[CONFIDENT_ARRAY] = {"long_name": "which object queries were kept"}
    return found


def _links_of_map(array: ArraySpec, block: int) -> dict[str, dict[str, Any]]:
    name = array.name
    of_map = {
        fact: value for fact in ("stride", "extent_m", "frame") if (value := getattr(array, fact)) is not None
    } | {"map": name, "map_role": array.role}
    per_cell = f"{name}_scale[camera]" if "camera" in array.dimension_names else f"{name}_scale"
    parts = {
        "cells": {
            "long_name": f"the cells of {name} that were kept",
            "scale_array": f"{name}_scale",
            "value": f"{name}_cells * {per_cell}",
            "rows_from": f"{name}_mask",
            "rows_rule": f"a row for each true value of {name}_mask, in C order",
        },
        "scale": {"long_name": f"one scale a channel of {name}_cells", "scale_of": f"{name}_cells"},
        "mask": {"long_name": f"which cells of {name} were kept"},
        "background": {
            "long_name": f"means of {name} over blocks of {block} × {block} cells",
            "scale_array": f"{name}_background_scale",
            "value": f"{name}_background * {name}_background_scale[..., None, None]",
            "block_cells": block,
        },
        "background_scale": {
            "long_name": f"one scale a channel of {name}_background",
            "scale_of": f"{name}_background",
        },
    }
    return {f"{name}_{part}": attributes | of_map for part, attributes in parts.items()}


class FocalEncoder:
    """Stores maps inside areas, over a coarse background, and the confident queries."""

    def __init__(self, arrays: Sequence[ArraySpec], background_block: int) -> None:
        self._arrays = arrays
        self._block = background_block
        stored = {array.name: array for array in stored_arrays(arrays, background_block)}
        self._confident = stored.get(CONFIDENT_ARRAY)
        self._masks = {array.name: stored[f"{array.name}_mask"] for array in arrays if array.is_map}

    def problems(self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
        """See Encoder."""
        problems = mismatches(self._arrays, values)
        areas = {} if areas is None else areas
        for name in sorted({*areas, *self._masks}):
            where = f"areas[{name!r}]"
            if name not in self._masks:
                problems.append(Problem(where, f"only maps: {', '.join(self._masks) or 'none'}", "one"))
            else:
                problems += mismatch(where, self._masks[name], areas.get(name))
        if self._confident is not None:
            problems += mismatch("confident", self._confident, confident)
        elif confident is not None:
            problems.append(Problem("confident", "None, as there are no query arrays", "something"))
        return problems

    def encode(
        self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """See Encoder."""
        stored: dict[str, np.ndarray] = {}
        for array in self._arrays:
            given = np.asarray(values[array.name], order="C")
            if array.is_map:
                stored |= encode_map(array.name, given, areas[array.name], self._block)
            elif array.role == QUERY:
                axis = array.query_axis
                rows = np.moveaxis(np.compress(confident, given, axis=axis), axis, 0)
                stored[array.name] = np.ascontiguousarray(rows)
            else:
                stored[array.name] = given
        if confident is not None:
            stored[CONFIDENT_ARRAY] = np.ascontiguousarray(confident)
        return stored


def _parts(array: ArraySpec, block: int) -> list[ArraySpec]:
    name, channels = array.name, array.shape[:-2]
    channel_names, (y_name, x_name) = array.dimension_names[:-2], array.dimension_names[-2:]
    blocks = block_counts(array.shape[-2:], block)
    return [
        ragged(
            f"{name}_cells",
            "int8",
            (math.prod(array.shape) // channels[-1], channels[-1]),
            (f"{name}_cell", channel_names[-1]),
        ),
        packing(f"{name}_scale", "float32", channels, channel_names),
        packing(
            f"{name}_mask",
            "bool",
            (*channels[:-1], *array.shape[-2:]),
            (*channel_names[:-1], y_name, x_name),
            compressed=True,  # to a twentieth, in a few microseconds
        ),
        ArraySpec(
            name=f"{name}_background",
            role=PACKING,
            dtype="int8",
            shape=(*channels, *blocks),
            dimension_names=(*channel_names, f"{y_name}_block", f"{x_name}_block"),
            compressed=False,
        ),
        packing(f"{name}_background_scale", "float32", channels, channel_names),
    ]


def _confident_rows(array: ArraySpec) -> ArraySpec:
    """The array with its queries in front, of which a sample keeps the confident ones."""
    axis = array.query_axis
    shape = (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
    names = (CONFIDENT_DIMENSION, *array.dimension_names[:axis], *array.dimension_names[axis + 1 :])
    rows = ragged(array.name, array.dtype, shape, names)
    return replace(rows, role=QUERY, extent_m=array.extent_m, frame=array.frame)


def block_counts(size: Sequence[int], block: int) -> tuple[int, ...]:
    """Blocks of `block` cells along each side of a map; the last one may stick out."""
    return tuple(-(-length // block) for length in size)


@dataclass(frozen=True, kw_only=True)
class FocalMap:
    """One map of a sample, as it is stored.

    Attributes:
        cells: (K, C) int8, the kept cells in the C order of `mask`.
        scale: (N, C) float32, of `cells`.
        mask: (N, H, W) bool, which cells are kept.
        background: (N, C, ⌈H / block⌉, ⌈W / block⌉) int8, the means of whole blocks, kept cells included.
        background_scale: (N, C) float32, of `background`.
        block: side of a block in cells.
    """

    cells: np.ndarray
    scale: np.ndarray
    mask: np.ndarray
    background: np.ndarray
    background_scale: np.ndarray
    block: int

    @property
    def cell_index(self) -> np.ndarray:
        """(K,) position of each kept cell in the flattened mask."""
        return np.flatnonzero(self.mask)

    def cell_values(self) -> np.ndarray:
        """(K, C) float32, the kept cells."""
        if self.mask.ndim == 2:
            return self.cells * self.scale
        return self.cells * self.scale[np.nonzero(self.mask)[0]]

    def values(self) -> np.ndarray:
        """(N, C, H, W) float32: the kept cells in their places, zero elsewhere."""
        return self._with_cells(np.zeros(self._channels_last(), np.float32))

    def background_values(self) -> np.ndarray:
        """(N, C, H, W) float32: every cell has the mean of its block."""
        blocks = dequantise(self.background, self.background_scale)
        repeated = blocks.repeat(self.block, axis=-2).repeat(self.block, axis=-1)
        return np.ascontiguousarray(repeated[..., : self.mask.shape[-2], : self.mask.shape[-1]])

    def filled(self) -> np.ndarray:
        """(N, C, H, W) float32: the kept cells, and the background between them."""
        return self._with_cells(np.moveaxis(self.background_values(), -3, -1).copy())

    def _channels_last(self) -> tuple[int, ...]:
        return (*self.mask.shape, self.cells.shape[1])

    def _with_cells(self, dense: np.ndarray) -> np.ndarray:
        dense[self.mask] = self.cell_values()
        return np.ascontiguousarray(np.moveaxis(dense, -1, -3))


@dataclass(frozen=True, kw_only=True)
class FocalSample:
    """A sample of profile `focal`.

    Attributes:
        maps: by the names that the teacher's maps have.
        queries: the arrays of the confident queries, in the teacher's order of dimensions: (L, n, …).
        query_index: (n,) which of the Q queries these are; None when the store has no query arrays.
        others: the other arrays, such as detections and `lidar2img`.
    """

    maps: dict[str, FocalMap]
    queries: dict[str, np.ndarray]
    query_index: np.ndarray | None
    others: dict[str, np.ndarray]

    @classmethod
    def from_stored(
        cls, arrays: Sequence[ArraySpec], background_block: int, stored: Mapping[str, np.ndarray]
    ) -> "FocalSample":
        """From the arrays of a sample as a reader gives them; `arrays` are those of the spec."""
        maps, queries, others = {}, {}, {}
        for array in arrays:
            name = array.name
            if array.is_map:
                parts = {part: stored[f"{name}_{part}"] for part in MAP_PARTS}
                maps[name] = FocalMap(**parts, block=background_block)
            elif array.role == QUERY:
                axis = array.query_axis
                queries[name] = np.ascontiguousarray(np.moveaxis(stored[name], 0, axis))
            else:
                others[name] = stored[name]
        confident = stored.get(CONFIDENT_ARRAY)
        index = None if confident is None else np.flatnonzero(confident)
        return cls(maps=maps, queries=queries, query_index=index, others=others)


def encode_map(name: str, values: np.ndarray, mask: np.ndarray, block: int) -> dict[str, np.ndarray]:
    """What is stored of a map.

    Args:
        name: of the map, with which the names of the stored arrays begin.
        values: (N, C, H, W) finite, floating-point.
        mask: (N, H, W) bool, the cells to keep.
        block: side of a background block in cells.
    """
    *_, n_channels, height, width = values.shape
    rows = values.reshape(-1, n_channels, height * width)
    kept = [
        quantise_rows(feats[:, np.flatnonzero(inside)])
        for feats, inside in zip(rows, mask.reshape(len(rows), -1), strict=True)
    ]
    background, background_scale = quantise(block_means(values, block))
    return {
        f"{name}_cells": np.concatenate([np.ascontiguousarray(cells.T) for cells, _ in kept]),
        f"{name}_scale": np.stack([scale for _, scale in kept]).reshape(values.shape[:-2]),
        f"{name}_mask": np.ascontiguousarray(mask),
        f"{name}_background": background,
        f"{name}_background_scale": background_scale,
    }


def block_means(values: np.ndarray, block: int) -> np.ndarray:
    """(…, ⌈H / block⌉, ⌈W / block⌉) float32 means of (…, H, W); blocks at the far edges hold fewer cells."""
    height, width = values.shape[-2:]
    starts_y, starts_x = np.arange(0, height, block), np.arange(0, width, block)
    sums = np.add.reduceat(values, starts_x, axis=-1, dtype=np.float32)
    sums = np.add.reduceat(sums, starts_y, axis=-2)
    n_y, n_x = np.diff(starts_y, append=height), np.diff(starts_x, append=width)
    return sums / np.outer(n_y, n_x).astype(np.float32)
