"""The depth net: for each cell of the image map a distribution over depth bins and a context feature.

Shapes: M images (batch times cameras), C channels, D depth bins, h w cells of the image map, K numbers of a
camera.
Source: Li et al., BEVDepth, AAAI 2023, section 4.3 (camera-aware depth, refinement); Hu et al.,
Squeeze-and-Excitation Networks, CVPR 2018; Chen et al., DeepLabv3, 2017 (ASPP). Parameter names are those of
the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.backbones.resnet import BasicBlock
from torch import Tensor, nn

from camera3d.detectors.bevdepth.rig import CAMERA_NUMBERS
from camera3d.ops import modulated_deform_conv2d


class CameraMLP(nn.Module):
    """Camera numbers (M, K) to a vector (M, C)."""

    def __init__(self, numbers: int, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(numbers, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, vector_MK: Tensor) -> Tensor:
        """(M, C)."""
        return self.fc2(self.fc1(vector_MK).relu())


class CameraGate(nn.Module):
    """Each channel of a map times a factor that the camera decides."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, channels, 1)
        self.conv_expand = nn.Conv2d(channels, channels, 1)

    def forward(self, feats_MChw: Tensor, camera_MC: Tensor) -> Tensor:
        """(M, C, h, w)."""
        hidden = self.conv_reduce(camera_MC[:, :, None, None]).relu()
        return feats_MChw * self.conv_expand(hidden).sigmoid()


class AtrousBranch(nn.Module):
    """Convolution with dilation, norm, ReLU."""

    def __init__(self, channels: int, *, kernel: int, dilation: int) -> None:
        super().__init__()
        padding = dilation if kernel > 1 else 0
        self.atrous_conv = nn.Conv2d(
            channels, channels, kernel, padding=padding, dilation=dilation, bias=False
        )
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same size."""
        return self.bn(self.atrous_conv(x)).relu()


class ASPP(nn.Module):
    """What four fields of view and the whole map see, merged."""

    def __init__(
        self, channels: int, *, dilations: Sequence[int] = (6, 12, 18), dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.aspp1 = AtrousBranch(channels, kernel=1, dilation=1)
        self.aspp2, self.aspp3, self.aspp4 = (
            AtrousBranch(channels, kernel=3, dilation=dilation) for dilation in dilations
        )
        self.global_avg_pool = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.conv1 = nn.Conv2d(5 * channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_MChw: Tensor) -> Tensor:
        """(M, C, h, w)."""
        views = [branch(x_MChw) for branch in (self.aspp1, self.aspp2, self.aspp3, self.aspp4)]
        views.append(self.global_avg_pool(x_MChw).expand_as(views[0]))
        return self.dropout(self.bn1(self.conv1(torch.cat(views, dim=1))).relu())


class MovingConv(nn.Module):
    """A 3×3 convolution whose taps move by offsets that it predicts (deformable convolution, version 1)."""

    def __init__(self, channels: int, *, groups: int = 4) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        self.conv_offset = nn.Conv2d(channels, 2 * 9, 3, padding=1)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The same size."""
        offset = self.conv_offset(x)
        unfaded = offset.new_ones(len(x), 9, *offset.shape[2:])
        return modulated_deform_conv2d(x, offset, unfaded, self.weight, padding=1, groups=self.groups)


class DepthNet(nn.Module):
    """Depth logits and context from the image map, each behind a gate that the camera's numbers open.

    Args:
        in_channels: of the image map; channels: of the layers between.
        context_channels: of what is lifted.
        depth_bins: D.
    """

    def __init__(self, *, in_channels: int, channels: int, context_channels: int, depth_bins: int) -> None:
        super().__init__()
        self.reduce_conv = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )
        self.context_conv = nn.Conv2d(channels, context_channels, 1)
        self.bn = nn.BatchNorm1d(CAMERA_NUMBERS)
        self.depth_mlp = CameraMLP(CAMERA_NUMBERS, channels)
        self.depth_se = CameraGate(channels)
        self.context_mlp = CameraMLP(CAMERA_NUMBERS, channels)
        self.context_se = CameraGate(channels)
        self.depth_conv = nn.Sequential(
            *(BasicBlock(channels, channels) for _ in range(3)),
            ASPP(channels),
            MovingConv(channels),
            nn.Conv2d(channels, depth_bins, 1),
        )

    def forward(self, feats_MChw: Tensor, vector_MK: Tensor) -> tuple[Tensor, Tensor]:
        """Depth probabilities (M, D, h, w) float32, and context (M, C', h, w)."""
        # Focal lengths and translations differ a million times: half precision would not hold them.
        with torch.autocast(vector_MK.device.type, enabled=False):
            camera = self.bn(vector_MK.float())
        feats = self.reduce_conv(feats_MChw)
        context = self.context_conv(self.context_se(feats, self.context_mlp(camera)))
        logits = self.depth_conv(self.depth_se(feats, self.depth_mlp(camera)))
        return logits.float().softmax(dim=1), context


class DepthAggregation(nn.Module):
    """A small residual net over the plane of depth bins and image columns, image row by image row."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce_conv = nn.Sequential(*_plain(channels))
        self.conv = nn.Sequential(*_plain(channels), *_plain(channels))
        self.out_conv = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, lifted_BDhwC: Tensor) -> Tensor:
        """(B, D, h, w, C) float32."""
        B, D, h, w, C = lifted_BDhwC.shape
        with torch.autocast(lifted_BDhwC.device.type, enabled=False):
            plane = lifted_BDhwC.float().permute(0, 2, 4, 3, 1).reshape(B * h, C, w, D)
            plane = self.reduce_conv(plane)
            plane = self.out_conv(self.conv(plane) + plane)
        return plane.view(B, h, C, w, D).permute(0, 4, 1, 3, 2)


def _plain(channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return [conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
