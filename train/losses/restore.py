"""The layer that lifts the student's BEV map to the teacher's size.

Shapes: B batch, C channels, H W the student's BEV map height and width.
Source: the released HeatmapDistiller.
"""

from __future__ import annotations

from torch import Tensor, nn


class BevRestore(nn.Module):
    """Deconvolution 4×4 with stride 2, BatchNorm, ReLU, convolution 3×3: twice the size, the same place.

    Trained with the student and thrown away afterwards.

    Args:
        student_channels, teacher_channels: what goes in and what comes out.
    """

    def __init__(self, *, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ConvTranspose2d(student_channels, teacher_channels, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(teacher_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    def forward(self, bev_BCHW: Tensor) -> Tensor:
        """(B, teacher channels, 2·H, 2·W)."""
        return self.layers(bev_BCHW)
