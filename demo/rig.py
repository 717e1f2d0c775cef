"""Inputs of full size: noise images, and the projection of a real camera rig."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN_FRAME = Path(__file__).parent.parent / "tests" / "golden" / "tiny.npz"


def full_size_inputs(image_hw: tuple[int, int], pixels_wide: int) -> dict[str, Tensor]:
    """One frame: `images` (1, 6, 3, H, W), `lidar2img` of nuScenes' rig for that width, `can_bus`.

    How many BEV cells a camera sees, and with it the work of the spatial attention, depends on the rig.
    """
    with np.load(GOLDEN_FRAME) as frame:
        lidar2img, can_bus = frame["f0.lidar2img"], frame["f0.can_bus"]
        golden_width = frame["f0.images_bgr_u8"].shape[2]
    scale = pixels_wide / golden_width
    generator = torch.Generator().manual_seed(0)
    return {
        "images": torch.randn(1, 6, 3, *image_hw, generator=generator) * 60,
        "lidar2img": torch.from_numpy(np.diag([scale, scale, 1, 1]) @ lidar2img)[None],
        "can_bus": torch.from_numpy(can_bus)[None],
    }
