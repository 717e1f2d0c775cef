"""Where a term looks: a weight for every cell or query of a sample, and which of them are not zero.

Finding out what is not zero makes a GPU's host wait. Regions are therefore made where the data is read, and
their places travel to the device beside the weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Region(NamedTuple):
    """Of one sample.

    weight: (...) bool, or ≥ 0: of each cell, or of each query.
    chosen: (k,) int64, the places in the flattened weight where it is not zero, ascending.
    parts: (m,) int64, which entries of the first dimension have such a place, ascending: for areas on images
        (N, H, W) the cameras that see an object.
    """

    weight: Tensor
    chosen: Tensor
    parts: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Region:
        """The region of a weight. On a GPU the host waits for it twice."""
        chosen = weight.flatten().nonzero().squeeze(-1)
        parts = weight.flatten(1).any(1).nonzero() if weight.dim() > 1 else weight.nonzero()
        return cls(weight, chosen, parts.squeeze(-1))


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
    parts: places in the first two dimensions, flattened.
    """

    weight: Tensor
    chosen: Tensor
    sample: Tensor
    parts: Tensor

    @classmethod
    def of(cls, regions: Regions) -> Stacked:
        """Regions of one shape."""
        weight = weights_of(regions)
        size, length = math.prod(weight.shape[1:]), weight.shape[1]
        none = weight.new_empty(0, dtype=torch.long)
        chosen, parts = [none], [none]
        for b, region in enumerate(per_sample(regions)):
            chosen.append(region.chosen + b * size)
            parts.append(region.parts + b * length)
        places = torch.cat(chosen)
        return cls(weight, places, places // max(size, 1), torch.cat(parts))

    def places(self) -> tuple[Tensor, ...]:
        """The chosen places as an index of each dimension of the weight."""
        left, index = self.chosen, []
        for size in reversed(self.weight.shape[1:]):
            index.append(left % size)
            left = left // size
        return (left, *reversed(index))
