"""How each profile turns a sample that the teacher gave into the arrays that are stored.

An encoder first says everything that does not fit about a sample, and then cannot fail on it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from cache_schema.array_spec import QUERY, ArraySpec
from cache_schema.codec import disk_dtype
from cache_schema.errors import Problem
from cache_schema.focal import encode_map
from cache_schema.layout import CONFIDENT_ARRAY
from cache_schema.quantise import LARGEST, SCALE_SUFFIX, quantise
from cache_schema.spec import StoreSpec

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


def encoder(spec: StoreSpec) -> Encoder:
    """The encoder of a store's profile."""
    return {"exact": ExactEncoder, "compact": CompactEncoder, "focal": FocalEncoder}[spec.profile](spec)


class ExactEncoder:
    """Stores what it is given."""

    def __init__(self, spec: StoreSpec) -> None:
        self._arrays = spec.arrays

    def problems(self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
        """See Encoder."""
        return mismatches(self._arrays, values) + _only_for_focal(areas, confident)

    def encode(
        self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """See Encoder."""
        return {array.name: np.asarray(values[array.name], order="C") for array in self._arrays}


class CompactEncoder:
    """Stores maps as int8 with scales; also takes maps that come as int8 with their scales."""

    def __init__(self, spec: StoreSpec) -> None:
        self._arrays = spec.arrays
        self._stored = {array.name: array for array in spec.stored_arrays}

    def problems(self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
        """See Encoder."""
        expected: list[ArraySpec] = []
        for array in self._arrays:
            scale = array.name + SCALE_SUFFIX
            quantised = array.is_map and scale in values
            expected += [self._stored[array.name], self._stored[scale]] if quantised else [array]
        problems = mismatches(expected, values) + _only_for_focal(areas, confident)
        if not problems:
            problems = [
                Problem(array.name, f"values of at least {-LARGEST}", str(values[array.name].min()))
                for array in expected
                if array.is_map and array.dtype == "int8" and values[array.name].min() < -LARGEST
            ]
        return problems

    def encode(
        self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """See Encoder."""
        stored = {name: np.asarray(array, order="C") for name, array in values.items()}
        for array in self._arrays:
            scale = array.name + SCALE_SUFFIX
            if array.is_map and scale not in values:
                stored[array.name], stored[scale] = quantise(stored[array.name])
        return stored


class FocalEncoder:
    """Stores maps inside areas, over a coarse background, and the confident queries."""

    def __init__(self, spec: StoreSpec) -> None:
        self._arrays = spec.arrays
        self._block = spec.focal.background_block
        stored = {array.name: array for array in spec.stored_arrays}
        self._confident = stored.get(CONFIDENT_ARRAY)
        self._masks = {array.name: stored[f"{array.name}_mask"] for array in spec.arrays if array.is_map}

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


def _only_for_focal(areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
    given = {"areas": areas, "confident": confident}
    expected = "None, as the profile is not focal"
    return [Problem(name, expected, "something") for name, value in given.items() if value is not None]
