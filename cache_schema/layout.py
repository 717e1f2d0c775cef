"""Which arrays a profile stores, given those that the teacher gives.

- `exact`: the teacher's arrays.
- `compact`: every map `m` as int8 beside its `m_scale`; the others as they are.
- `focal`: of every map the cells inside the sample's areas, ragged (`m_cells`, `m_scale`), which cells those
  are (`m_mask`), and the whole map in coarse blocks (`m_background`, `m_background_scale`); of the arrays
  about queries the confident ones, ragged, and which queries those are (`query_confident`); the others as
  they are.

A map is an array whose role says so.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cache_schema.array_spec import (
    CONFIDENT_DIMENSION,
    DETECTION,
    PACKING,
    QUERY,
    QUERY_DIMENSION,
    ArraySpec,
)
from cache_schema.errors import Problem

PROFILES = ("exact", "compact", "focal")
CONFIDENT_ARRAY = "query_confident"
MAX_DETECTIONS = 300  # of a sample, the best ones
# Boxes (n, 9), scores (n,) and labels (n,) of a sample, best first; docs/store-format.md has the convention.
DETECTION_BOXES, DETECTION_SCORES, DETECTION_LABELS = DETECTION_ARRAYS = (
    "detection_boxes",
    "detection_scores",
    "detection_labels",
)
# Small chunks waste little on the last one of a sample, large ones keep the shard's index short.
RAGGED_CHUNK_NBYTES = 1 << 14


def detection_arrays() -> tuple[ArraySpec, ...]:
    """The arrays of the decoded boxes, which every store has."""
    rows = {"role": DETECTION, "compressed": False, "rows_per_chunk": MAX_DETECTIONS}
    return (
        ArraySpec(
            name=DETECTION_BOXES,
            dtype="float32",
            shape=(MAX_DETECTIONS, 9),
            dimension_names=("detection", "box_number"),
            **rows,
        ),
        ArraySpec(
            name=DETECTION_SCORES,
            dtype="float32",
            shape=(MAX_DETECTIONS,),
            dimension_names=("detection",),
            **rows,
        ),
        ArraySpec(
            name=DETECTION_LABELS,
            dtype="int16",
            shape=(MAX_DETECTIONS,),
            dimension_names=("detection",),
            **rows,
        ),
    )


def layout_problems(profile: str, arrays: Sequence[ArraySpec]) -> list[Problem]:
    """Why a profile cannot store these arrays of the teacher."""
    expected = "rows_per_chunk null: but for detections, which arrays are ragged is up to the profile"
    problems = [
        Problem(f"array {array.name}", expected, str(array.rows_per_chunk))
        for array in arrays
        if array.ragged and array.role != DETECTION
    ]
    problems += [
        Problem(f"array {array.name}", "a role of the teacher's", PACKING)
        for array in arrays
        if array.role == PACKING
    ]
    if profile != "exact":
        for array in arrays:
            if not array.is_map:
                continue
            kind = np.dtype(array.dtype).kind
            if kind != "f" or len(array.shape) not in (3, 4) or array.dimension_names[-3] != "channel":
                expected = "a floating-point map (channel, y, x) or (camera, channel, y, x)"
                problems.append(
                    Problem(f"array {array.name}", expected, f"{array.dtype} {array.dimension_names}")
                )
    return problems


def stored_arrays(
    profile: str, arrays: Sequence[ArraySpec], background_block: int = 1
) -> tuple[ArraySpec, ...]:
    """The arrays on disk, in the order they are stored in.

    Args:
        profile: one of PROFILES.
        arrays: what the teacher gives; `layout_problems` has nothing against them.
        background_block: side of a background block in map cells, of profile `focal`.
    """
    if profile == "exact":
        return tuple(arrays)
    stored: list[ArraySpec] = []
    for array in arrays:
        if array.is_map:
            stored += _compact(array) if profile == "compact" else _focal(array, background_block)
        elif array.role == QUERY and profile == "focal":
            stored.append(_confident_rows(array))
        else:
            stored.append(array)
    if profile == "focal":
        per_query = next((array for array in arrays if array.role == QUERY), None)
        if per_query is not None:
            n_queries = per_query.shape[per_query.query_axis]
            stored.append(_small(CONFIDENT_ARRAY, "bool", (n_queries,), (QUERY_DIMENSION,)))
    return tuple(stored)


def block_counts(size: Sequence[int], block: int) -> tuple[int, ...]:
    """Blocks of `block` cells along each side of a map; the last one may stick out."""
    return tuple(-(-length // block) for length in size)


def _compact(array: ArraySpec) -> list[ArraySpec]:
    return [
        replace(array, dtype="int8", compressed=False),
        _small(f"{array.name}_scale", "float32", array.shape[:-2], array.dimension_names[:-2]),
    ]


def _focal(array: ArraySpec, block: int) -> list[ArraySpec]:
    name, channels = array.name, array.shape[:-2]
    channel_names, (y_name, x_name) = array.dimension_names[:-2], array.dimension_names[-2:]
    blocks = block_counts(array.shape[-2:], block)
    return [
        _ragged(
            f"{name}_cells",
            "int8",
            (math.prod(array.shape) // channels[-1], channels[-1]),
            (f"{name}_cell", channel_names[-1]),
        ),
        _small(f"{name}_scale", "float32", channels, channel_names),
        _small(
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
        _small(f"{name}_background_scale", "float32", channels, channel_names),
    ]


def _confident_rows(array: ArraySpec) -> ArraySpec:
    """The array with its queries in front, of which a sample keeps the confident ones."""
    axis = array.query_axis
    shape = (array.shape[axis], *array.shape[:axis], *array.shape[axis + 1 :])
    names = (CONFIDENT_DIMENSION, *array.dimension_names[:axis], *array.dimension_names[axis + 1 :])
    rows = _ragged(array.name, array.dtype, shape, names)
    return replace(rows, role=QUERY, extent_m=array.extent_m, frame=array.frame)


def _ragged(name: str, dtype: str, shape: tuple[int, ...], dimension_names: tuple[str, ...]) -> ArraySpec:
    row_nbytes = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    return ArraySpec(
        name=name,
        role=PACKING,
        dtype=dtype,
        shape=shape,
        dimension_names=dimension_names,
        compressed=False,
        rows_per_chunk=min(shape[0], max(1, RAGGED_CHUNK_NBYTES // row_nbytes)),
    )


def _small(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dimension_names: tuple[str, ...],
    compressed: bool = False,
) -> ArraySpec:
    return ArraySpec(
        name=name,
        role=PACKING,
        dtype=dtype,
        shape=shape,
        dimension_names=dimension_names,
        compressed=compressed,
    )
