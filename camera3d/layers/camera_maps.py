"""From the images of all cameras to feature-pyramid maps.

Shapes: B batch, N cameras, C channels, H W image size, h w map size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def camera_maps(
    images_BN3HW: Tensor, *, grid_mask: nn.Module, backbone: nn.Module, neck: nn.Module
) -> list[Tensor]:
    """One (B, N, C, h, w) a level of the neck, finest first; all images get the same grid mask."""
    B, N = images_BN3HW.shape[:2]
    flat = grid_mask(images_BN3HW.flatten(0, 1))
    if flat.device.type == "cpu":
        # A third faster there: oneDNN and the deformable convolution both work pixel by pixel.
        flat = flat.contiguous(memory_format=torch.channels_last)
    return [feats.unflatten(0, (B, N)) for feats in neck(backbone(flat))]
