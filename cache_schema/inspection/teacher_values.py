"""The teacher's arrays of a sample, whatever the profile: dequantised, under the teacher's names."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cache_schema.profiles.compact import float_maps
from cache_schema.profiles.focal import FocalSample
from cache_schema.spec import StoreSpec


@dataclass(frozen=True)
class TeacherValues:
    """What a store knows of a sample.

    Attributes:
        arrays: by the teacher's names; maps (…, channel, y, x) without holes: between kept cells lies the
            background. Arrays of the queries hold the kept queries only.
        masks: (…, y, x) bool by map, the cells that were kept; empty when all were.
        query_index: which queries were kept; None when all were.
    """

    arrays: dict[str, np.ndarray]
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    query_index: np.ndarray | None = None


def teacher_values(spec: StoreSpec, stored: Mapping[str, np.ndarray]) -> TeacherValues:
    """From the arrays of a sample as a reader gives them."""
    if spec.profile != "focal":
        return TeacherValues(float_maps(stored))
    sample = FocalSample.from_stored(spec.arrays, spec.background_block, stored)
    maps = {name: feats.filled() for name, feats in sample.maps.items()}
    return TeacherValues(
        arrays={**maps, **sample.queries, **sample.others},
        masks={name: feats.mask for name, feats in sample.maps.items()},
        query_index=sample.query_index,
    )


def query_axes(spec: StoreSpec) -> dict[str, int]:
    """Which dimension of each per-query array counts the queries."""
    return {array.name: array.query_axis for array in spec.arrays if array.query_axis is not None}
