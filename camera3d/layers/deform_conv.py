"""A modulated deformable convolution that predicts its own offsets, for the backbone's last stages.

Parameter names, shapes and channel order are those of mmcv's DCNv2 layer, so checkpoints load unchanged; the
operator behind it is chosen by `camera3d.ops`, so it needs no compiled extension.
Source: Zhu et al., Deformable ConvNets v2, CVPR 2019, section 3.1.
"""

from __future__ import annotations

import math

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from camera3d.ops import modulated_deform_conv2d


# In the root registry: mmcv.cnn.build_conv_layer looks in the registry of the current scope and then in the
# root, so only a layer of the root is found whether the scope is mmdet, mmdet3d or none.
@MODELS.register_module()
class FocalDCNv2(nn.Module):
    """Convolution whose offsets and modulation come from a second convolution of the same input.

    Takes the arguments of `nn.Conv2d` that `build_conv_layer` passes, and `deform_groups`. In an mmdet
    ResNet: `dcn=dict(type="FocalDCNv2", deform_groups=1, fallback_on_stride=False)`.

    `conv_offset` has 3 · deform_groups · K output channels for K kernel taps: first the offsets (dy, dx of
    every tap), in input pixels, then the logits of the modulation. Initialised to zero it makes the layer a
    plain convolution at half strength.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        deform_groups: int = 1,
        bias: bool = True,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(stride)
        self.padding = _pair(padding)
        self.dilation = _pair(dilation)
        self.groups = groups
        self.deform_groups = deform_groups
        # Read by mmcv's ConvModule, which treats this layer as an nn.Conv2d.
        self.transposed = False
        self.output_padding = (0, 0)

        taps = math.prod(self.kernel_size)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels))
        else:
            self.register_parameter("bias", None)
        self.conv_offset = nn.Conv2d(
            in_channels,
            3 * deform_groups * taps,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        self.init_weights()

    def init_weights(self) -> None:
        """Uniform kernel as in nn.Conv2d, zero offsets; mmengine calls this again after its own rules."""
        bound = 1 / math.sqrt(self.in_channels * math.prod(self.kernel_size))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        nn.init.zeros_(self.conv_offset.weight)
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, h, w)."""
        predicted = self.conv_offset(x)
        taps = math.prod(self.kernel_size)
        offset, logits = predicted.split([2 * self.deform_groups * taps, self.deform_groups * taps], dim=1)
        return modulated_deform_conv2d(
            x,
            offset,
            logits.sigmoid(),
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            deform_groups=self.deform_groups,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, "
            f"deform_groups={self.deform_groups}, bias={self.bias is not None}"
        )


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
