"""Weights that every machine can make: each entry of a state dict is drawn from its own key.

The golden arrays in this folder are outputs of the official code with these weights.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor, nn

CODE_WEIGHTS = (1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2)


def entry(key: str, like: Tensor) -> Tensor:
    """The weight of that key in the shape of `like`; what is not floating point keeps its value."""
    if not like.is_floating_point():
        return like.clone()
    seed = zlib.crc32(key.encode()) & 0x7FFFFFFF
    noise = np.asarray(np.random.RandomState(seed).standard_normal(tuple(like.shape)), dtype=np.float32)
    if key.endswith("code_weights"):
        value = np.asarray(CODE_WEIGHTS)
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif key.endswith("running_mean"):
        value = 0.1 * noise
    elif noise.ndim <= 1:
        value = 1 + 0.1 * noise if key.endswith("weight") else 0.1 * noise
    elif "embedding" in key or "embed" in key.rsplit(".", 1)[-1]:
        value = noise
    else:
        gain = 0.1 if key.startswith("img_neck.") else 1.0
        value = noise * gain / np.sqrt(np.prod(noise.shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def state_dict(detector: nn.Module) -> dict[str, Tensor]:
    """A whole state dict by the formula."""
    return {key: entry(key, value) for key, value in detector.state_dict().items()}
