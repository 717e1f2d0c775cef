"""Where a term looks: a weight for every cell or query of a sample, and which of them are not zero.

Finding out what is not zero makes a GPU's host wait. Regions are therefore made where the data is read, and
their places travel to the device beside the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of one image."""

    image: int
    top: int
    bottom: int
    left: int
    right: int


class Region(NamedTuple):
    """Of one sample.

    weight: (...) bool, or ≥ 0: of each cell, or of each query.
    chosen: (k,) int64, the places in the flattened weight where it is not zero, ascending.
    windows: of areas on images (N, H, W), the smallest window around them in every image that has some;
        otherwise empty. Numbers of the host's, which cuts maps by them.
    """

    weight: Tensor
    chosen: Tensor
    windows: tuple[Window, ...] = ()

    @classmethod
    def of(cls, weight: Tensor) -> Region:
        """The region of a weight. On a GPU the host waits for it."""
        windows = tuple(_windows(weight.cpu())) if weight.dim() == 3 else ()
        return cls(weight, weight.flatten().nonzero().squeeze(-1), windows)


def _windows(weight_NHW: Tensor) -> Iterator[Window]:
    for image, cells in enumerate(weight_NHW != 0):
        rows, columns = (cells.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        if rows:
            yield Window(image, rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


Regions = Tensor | Sequence[Region]
"""A batch: a region a sample, or the stacked weights (B, ...), whose places are then looked for."""


def per_sample(regions: Regions) -> list[Region]:
    """A region a sample."""
    return [Region.of(weight) for weight in regions] if isinstance(regions, Tensor) else list(regions)


def weights_of(regions: Regions) -> Tensor:
    """(B, ...), the weights of a batch."""
    return regions if isinstance(regions, Tensor) else torch.stack([region.weight for region in regions])


class Stacked(NamedTuple):
    """The regions of a batch as one.

    weight: (B, ...).
    chosen: places in the flattened weight.
    sample: which sample each of them belongs to.
    windows: see Region; images are counted through the batch.
    """

    weight: Tensor
    chosen: Tensor
    sample: Tensor
    windows: tuple[Window, ...]

    @classmethod
    def of(cls, regions: Regions) -> Stacked:
        """Regions of one shape."""
        weight = weights_of(regions)
        size = math.prod(weight.shape[1:])
        chosen, windows = [weight.new_empty(0, dtype=torch.long)], []
        for b, region in enumerate(per_sample(regions)):
            chosen.append(region.chosen + b * size)
            windows += [w._replace(image=w.image + b * weight.shape[1]) for w in region.windows]
        places = torch.cat(chosen)
        return cls(weight, places, places // max(size, 1), tuple(windows))

    def places(self) -> tuple[Tensor, ...]:
        """The chosen places as an index of each dimension of the weight."""
        left, index = self.chosen, []
        for size in reversed(self.weight.shape[1:]):
            index.append(left % size)
            left = left // size
        return (left, *reversed(index))
