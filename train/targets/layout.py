"""Which stored arrays a teacher's array lies in, by profile: what a data worker has to read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cache_schema.array_spec import QUERY
from cache_schema.profiles import stored_names as names_of
from cache_schema.spec import StoreSpec


@dataclass(frozen=True, kw_only=True)
class TargetLayout:
    """How the arrays of a sample are packed.

    Attributes:
        profile: `exact`, `compact` or `focal`; a live teacher's outputs count as `exact`.
        query_axes: by the name of each array with a dimension for queries, which dimension that is.
        num_queries: Q, of the teacher.
        only_confident: whether a sample has the confident queries alone, as in profile `focal` and in layers.
        background_block: side in cells of a block of the coarse background, of profile `focal`.
    """

    profile: str
    query_axes: dict[str, int]
    num_queries: int
    only_confident: bool = False
    background_block: int = 1

    @classmethod
    def of_store(cls, spec: StoreSpec, layer: StoreSpec | None = None) -> TargetLayout:
        """The layout of a store's samples, whose queries are those of a layer that has some."""
        has_queries = layer is not None and any(array.role == QUERY for array in layer.arrays)
        queries = layer if has_queries else spec
        axes = {a.name: a.query_axis for a in queries.arrays if a.query_axis is not None}
        counts = [a.shape[axes[a.name]] for a in queries.arrays if a.name in axes]
        return cls(
            profile=spec.profile,
            query_axes=axes,
            num_queries=counts[0] if counts else 0,
            only_confident=queries.profile == "focal",
            background_block=spec.background_block,
        )


def stored_names(spec: StoreSpec, names: Iterable[str]) -> tuple[str, ...]:
    """The stored arrays that hold the teacher's arrays `names`, all of which the store has."""
    arrays = {array.name: array for array in spec.arrays}
    held = (stored for name in names for stored in names_of(spec.profile, arrays[name]))
    return tuple(dict.fromkeys(held))
