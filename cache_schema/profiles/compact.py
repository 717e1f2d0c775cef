"""Profile `compact`: every map `m` as int8 beside its scales `m_scale`, the others as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cache_schema.array_spec import ArraySpec
from cache_schema.errors import Problem
from cache_schema.profiles.encoding import Arrays, mismatches, only_for_focal, packing
from cache_schema.quantise import LARGEST, dequantise, quantise

SCALE_SUFFIX = "_scale"


def stored_arrays(arrays: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
    """The arrays on disk."""
    stored: list[ArraySpec] = []
    for array in arrays:
        if array.is_map:
            scale = packing(
                array.name + SCALE_SUFFIX, "float32", array.shape[:-2], array.dimension_names[:-2]
            )
            stored += [replace(array, dtype="int8", compressed=False), scale]
        else:
            stored.append(array)
    return tuple(stored)


def stored_names(array: ArraySpec) -> tuple[str, ...]:
    """The stored arrays that hold one of the teacher's."""
    return (array.name, array.name + SCALE_SUFFIX) if array.is_map else (array.name,)


def links(arrays: Sequence[ArraySpec]) -> dict[str, dict[str, Any]]:
    """Attributes of maps and of their scales: a map points at its scales, and these at the map."""
    found: dict[str, dict[str, Any]] = {}
    for array in arrays:
        if array.is_map:
            name, scale = array.name, array.name + SCALE_SUFFIX
            found[name] = {"scale_array": scale, "value": f"{name} * {scale}[..., None, None]"}
            found[scale] = {"long_name": f"one scale a channel of {name}", "scale_of": name}
    return found


class CompactEncoder:
    """Stores maps as int8 with scales; also takes maps that come as int8 with their scales."""

    def __init__(self, arrays: Sequence[ArraySpec]) -> None:
        self._arrays = arrays
        self._stored = {array.name: array for array in stored_arrays(arrays)}

    def problems(self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
        """See Encoder."""
        expected: list[ArraySpec] = []
        for array in self._arrays:
            scale = array.name + SCALE_SUFFIX
            quantised = array.is_map and scale in values
            expected += [self._stored[array.name], self._stored[scale]] if quantised else [array]
        problems = mismatches(expected, values) + only_for_focal(areas, confident)
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


def float_maps(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a sample with every dense int8 map turned into float32 by the scale stored beside it.

    Scales are left out, all other arrays are passed on. An `exact` sample comes back as it is.
    """
    scales = {f"{name}{SCALE_SUFFIX}" for name in arrays} & set(arrays)
    return {
        name: dequantise(values, arrays[name + SCALE_SUFFIX]) if name + SCALE_SUFFIX in scales else values
        for name, values in arrays.items()
        if name not in scales
    }
