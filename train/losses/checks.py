"""What all terms share: the shape check, the precision they compute in, and a zero that has a graph.

Shapes: a term takes a batch of B samples and returns the mean of what it would return for each sample alone,
so that B samples on one device weigh what B devices with one sample each would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


class ShapeMismatch(ValueError):
    """Tensors given to a distillation term do not fit together."""


def check_shapes(term: str, **expected: tuple[Tensor, Sequence[int | None]]) -> None:
    """Raise ShapeMismatch naming every tensor that is not as expected.

    Args:
        term: the caller's name, for the message.
        expected: name=(tensor, its shape); None stands for any size.
    """
    faults = []
    for name, (tensor, shape) in expected.items():
        got = tuple(tensor.shape)
        fits = len(got) == len(shape) and all(w is None or w == g for w, g in zip(shape, got, strict=True))
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            faults.append(f"{name}: expected ({wanted}), got {got}")
    if faults:
        raise ShapeMismatch(f"{term}: " + "; ".join(faults))


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float32, or float64 for float64: squares and sums of half-precision maps overflow in their own type."""
    return torch.promote_types(tensor.dtype, torch.float32)


def zero_with_graph(tensors: Iterable[Tensor]) -> Tensor:
    """A scalar zero whose gradient on each tensor is zero, whatever the values are.

    The sum of an empty slice: `0 * x.sum()` would be NaN where the sum overflows. Every trainable tensor is
    touched in every step this way, which data-parallel training wants.
    """
    return sum(tensor.flatten()[:0].to(compute_dtype(tensor)).sum() for tensor in tensors)
