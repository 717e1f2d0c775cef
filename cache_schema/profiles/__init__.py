"""How a store keeps what the teacher gives: one file a profile, with its arrays, encoding and decoding.

A map is an array whose role says so.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cache_schema.array_spec import DETECTION, PACKING, ArraySpec
from cache_schema.errors import Problem
from cache_schema.profiles import compact, exact, focal
from cache_schema.profiles.encoding import Encoder

PROFILES = ("exact", "compact", "focal")


def stored_arrays(
    profile: str, arrays: Sequence[ArraySpec], background_block: int = 1
) -> tuple[ArraySpec, ...]:
    """The arrays on disk, in the order they are stored in.

    Args:
        profile: one of PROFILES.
        arrays: what the teacher gives; `layout_problems` has nothing against them.
        background_block: side of a background block in map cells, of profile `focal`.
    """
    if profile == "focal":
        return focal.stored_arrays(arrays, background_block)
    return {"exact": exact, "compact": compact}[profile].stored_arrays(arrays)


def stored_names(profile: str, array: ArraySpec) -> tuple[str, ...]:
    """The stored arrays that hold one of the teacher's."""
    return {"exact": exact, "compact": compact, "focal": focal}[profile].stored_names(array)


def links(profile: str, arrays: Sequence[ArraySpec], background_block: int = 1) -> dict[str, dict[str, Any]]:
    """By stored array the attributes that say which others it is read with, and how. Arguments as above."""
    if profile == "focal":
        return focal.links(arrays, background_block)
    return compact.links(arrays) if profile == "compact" else {}


def encoder(profile: str, arrays: Sequence[ArraySpec], background_block: int = 1) -> Encoder:
    """What turns samples of the teacher into stored ones; arguments as of `stored_arrays`."""
    if profile == "focal":
        return focal.FocalEncoder(arrays, background_block)
    return {"exact": exact.ExactEncoder, "compact": compact.CompactEncoder}[profile](arrays)


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
            if (
                kind != "f"
                or len(array.shape) not in (3, 4)
                or not array.dimension_names[-3].endswith("channel")
            ):
                expected = "a floating-point map (channel, y, x) or (camera, channel, y, x)"
                problems.append(
                    Problem(f"array {array.name}", expected, f"{array.dtype} {array.dimension_names}")
                )
    return problems
