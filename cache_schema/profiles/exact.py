"""Profile `exact`: the teacher's arrays as they are."""

from collections.abc import Sequence

import numpy as np

from cache_schema.array_spec import ArraySpec
from cache_schema.errors import Problem
from cache_schema.profiles.encoding import Arrays, mismatches, only_for_focal


def stored_arrays(arrays: Sequence[ArraySpec]) -> tuple[ArraySpec, ...]:
    """The arrays on disk."""
    return tuple(arrays)


def stored_names(array: ArraySpec) -> tuple[str, ...]:
    """The stored arrays that hold one of the teacher's."""
    return (array.name,)


class ExactEncoder:
    """Stores what it is given."""

    def __init__(self, arrays: Sequence[ArraySpec]) -> None:
        self._arrays = arrays

    def problems(self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None) -> list[Problem]:
        """See Encoder."""
        return mismatches(self._arrays, values) + only_for_focal(areas, confident)

    def encode(
        self, values: Arrays, areas: Arrays | None, confident: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        """See Encoder."""
        return {array.name: np.asarray(values[array.name], order="C") for array in self._arrays}
