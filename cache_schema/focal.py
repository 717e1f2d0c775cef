"""Maps of which only the areas that matter are kept, over a coarse background, and their way back.

Shapes: N cameras, C channels, H W cells of a map, K kept cells, Q object queries, n confident ones, L layers.
A BEV map has no camera dimension; (N,) below is then left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cache_schema.array_spec import QUERY
from cache_schema.errors import SpecInvalid
from cache_schema.layout import CONFIDENT_ARRAY
from cache_schema.quantise import dequantise, quantise, quantise_rows
from cache_schema.spec import StoreSpec


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
    def from_stored(cls, spec: StoreSpec, stored: Mapping[str, np.ndarray]) -> "FocalSample":
        """From the arrays of a sample as a reader gives them. Raises SpecInvalid for another profile."""
        if spec.focal is None:
            raise SpecInvalid(f"the store has profile {spec.profile}; read its arrays by name instead")
        maps, queries, others = {}, {}, {}
        for array in spec.arrays:
            name = array.name
            if array.is_map:
                parts = {part: stored[f"{name}_{part}"] for part in _MAP_PARTS}
                maps[name] = FocalMap(**parts, block=spec.focal.background_block)
            elif array.role == QUERY:
                axis = array.query_axis
                queries[name] = np.ascontiguousarray(np.moveaxis(stored[name], 0, axis))
            else:
                others[name] = stored[name]
        confident = stored.get(CONFIDENT_ARRAY)
        index = None if confident is None else np.flatnonzero(confident)
        return cls(maps=maps, queries=queries, query_index=index, others=others)


_MAP_PARTS = ("cells", "scale", "mask", "background", "background_scale")


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
