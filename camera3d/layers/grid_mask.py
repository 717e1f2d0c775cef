"""GridMask, the image augmentation of the official trainings.

Shapes: B images, C channels, H W pixels.
Source: Chen et al., GridMask Data Augmentation, arXiv:2001.04086, with the settings that the
official detectors share: a lattice of bars is kept, the squares between them are dropped (mode 1), and
nothing is rotated.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class GridMask(nn.Module):
    """Zero a random grid of squares, the same for all images of a call; identity in eval mode.

    Args:
        prob: chance that a call masks anything.
        ratio: width of a kept bar over the period of the grid.
    """

    def __init__(self, *, prob: float = 0.7, ratio: float = 0.5) -> None:
        super().__init__()
        self.prob = prob
        self.ratio = ratio

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Masked images, (B, C, H, W). Draws from numpy's global generator, which mmengine seeds per rank."""
        if not self.training or np.random.rand() > self.prob:  # noqa: NPY002
            return images_BCHW
        height, width = images_BCHW.shape[-2:]
        mask = self.draw_mask(height, width)
        return images_BCHW * torch.from_numpy(mask).to(images_BCHW)

    def draw_mask(self, height: int, width: int) -> np.ndarray:
        """(H, W) float32 of zeros and ones: one on the kept bars."""
        period = np.random.randint(2, height)  # noqa: NPY002
        bar = min(max(int(period * self.ratio + 0.5), 1), period - 1)
        # The official code draws on a canvas half as large again (room for the rotation it never uses) and
        # crops the middle: the offsets below are that crop's.
        rows = self._bars(int(1.5 * height), period, bar)
        columns = self._bars(int(1.5 * width), period, bar)
        top, left = (len(rows) - height) // 2, (len(columns) - width) // 2
        kept = rows[top : top + height, None] | columns[None, left : left + width]
        return kept.astype(np.float32)

    @staticmethod
    def _bars(length: int, period: int, bar: int) -> np.ndarray:
        """(length,) bool: true on the bars; the last, incomplete period has none."""
        start = np.random.randint(period)  # noqa: NPY002
        inside = np.zeros(length, dtype=bool)
        for i in range(length // period):
            inside[i * period + start : i * period + start + bar] = True
        return inside
