"""What the profiles share: how a sample is tested and encoded, and the small arrays beside maps.

An encoder first says everything that does not fit about a sample, and then cannot fail on it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from cache_schema.array_spec import PACKING, ArraySpec
from cache_schema.codec import disk_dtype
from cache_schema.errors import Problem

# Small chunks waste little on the last one of a sample, large ones keep the shard's index short.
RAGGED_CHUNK_NBYTES = 1 << 14
Arrays = Mapping[str, np.ndarray]


class Encoder(Protocol):
    """One profile.

    `values` are the teacher's arrays by name, `areas` the cells to keep of each map, (N, H, W) or (H, W) bool
    by the map's name, `confident` (Q,) bool the queries to keep; both None but for profile `focal`.
    """

    def problems(self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
        """What does not fit: names, dtypes, shapes, and arguments that are missing or too many."""

    def encode(
        self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """The stored arrays by name, C-ordered. `problems` had nothing against these arguments."""


def mismatches(expected: Sequence[ArraySpec], values: Arrays) -> list[Problem]:
    """Arrays that are unknown, missing, or of another dtype or shape."""
    known = [array.name for array in expected]
    problems = [
        Problem(str(name), f"no such array (the store takes {', '.join(known)})", "one")
        for name in values
        if name not in known
    ]
    for array in expected:
        problems += mismatch(array.name, array, values.get(array.name))
    return problems


def mismatch(where: str, array: ArraySpec, values: object) -> list[Problem]:
    """How `values` differ from what an array's samples are like."""
    expected = f"{array.dtype} {array.shape}" + (", or fewer rows" if array.ragged else "")
    if values is None:
        return [Problem(where, expected, "nothing")]
    if not isinstance(values, np.ndarray):
        return [Problem(where, f"a numpy array, {expected}", type(values).__name__)]
    shape = array.shape
    if array.ragged and values.ndim == len(shape) and len(values) <= shape[0]:
        shape = (len(values), *shape[1:])
    if (values.dtype, values.shape) != (disk_dtype(array), shape):
        return [Problem(where, expected, f"{values.dtype} {values.shape}")]
    return []


def only_for_focal(areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
    given = {"areas": areas, "confident": confident}
    expected = "None, as the profile is not focal"
    return [Problem(name, expected, "something") for name, value in given.items() if value is not None]


def ragged(name: str, dtype: str, shape: tuple[int, ...], dimension_names: tuple[str, ...]) -> ArraySpec:
    """An array of which a sample fills as many rows as it has; `shape` is the largest."""
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


def packing(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dimension_names: tuple[str, ...],
    compressed: bool = False,
) -> ArraySpec:
    """An array that a profile puts beside a map."""
    return ArraySpec(
        name=name,
        role=PACKING,
        dtype=dtype,
        shape=shape,
        dimension_names=dimension_names,
        compressed=compressed,
    )
