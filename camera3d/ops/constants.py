"""Small constant tensors, sent to a device once instead of in every call: each sending may stall a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def constant(values: Sequence, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of these numbers on the device of `like`, in its dtype or another one. Never write into it.

    Args:
        values: numbers, or sequences of them; as few that keeping them costs nothing.
    """
    return _kept(_hashable(values), dtype or like.dtype, like.device)


@lru_cache(maxsize=1024)
def _kept(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Born in inference mode it could never take part in a training.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _hashable(values: object) -> object:
    return tuple(map(_hashable, values)) if isinstance(values, Sequence) else values
