"""Modulated deformable convolution (DCNv2).

Shapes: B batch, C input channels, O output channels, K kernel taps, G deformable groups, N output pixels.
Source: Zhu et al., Deformable ConvNets v2, CVPR 2019, eq. 1: every tap reads the input at its own offset and
multiplies what it reads by its own modulation. Channel layout of the offsets as in mmcv: for every deformable
group and tap (row by row), first dy, then dx, in input pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from camera3d.errors import ShapeMismatch
from camera3d.ops.backend import DCN, mmcv_function, op_backend
from camera3d.ops.bilinear import RowPlan, bilinear_rows, weighted_rows

# Output pixels handled at a time when no gradient is needed, on the CPU: 9 taps of 256 channels are then
# 4.7 MB, which the matrix product still finds in the cache, and it is large enough to run at full speed.
PIXELS_PER_CHUNK = 512

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class ConvGeometry:
    """Where the taps of a convolution lie; every pair is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the output for an input of this size, in pixels."""
        return tuple(
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pad, dilation in zip(
                (height, width), self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def tap_positions(self, height: int, width: int, like: Tensor) -> Tensor:
        """(2, N, K): x and y in input pixels that each tap would read without an offset."""
        out_h, out_w = self.output_size(height, width)
        axes = []
        for axis, length in ((1, out_w), (0, out_h)):
            pixel = torch.arange(length, device=like.device) * self.stride[axis] - self.padding[axis]
            tap = torch.arange(self.kernel[axis], device=like.device) * self.dilation[axis]
            axes.append(pixel[:, None] + tap)
        x = axes[0][None, :, None, :]
        y = axes[1][:, None, :, None]
        full = (out_h, out_w, *self.kernel)
        taps = self.kernel[0] * self.kernel[1]
        return torch.stack([x.expand(full), y.expand(full)]).view(2, out_h * out_w, taps).to(like.dtype)


def modulated_deform_conv2d(
    x: Tensor,
    offset: Tensor,
    modulation: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
    deform_groups: int = 1,
) -> Tensor:
    """A convolution whose taps move and fade.

    Args:
        x: (B, C, H, W), contiguous or channels-last; the result has the same memory format.
        offset: (B, 2·G·K, h, w), h and w being the size of the output.
        modulation: (B, G·K, h, w), the factor on each tap, normally in [0, 1].
        weight: (O, C / groups, kernel height, kernel width).
        bias: (O,) or None.

    Returns:
        (B, O, h, w), in the type of `x`, or under autocast in the type that conv2d would return. Positions
        are never rounded below float32.

    Raises:
        ShapeMismatch: shapes that do not belong together, all of them listed.
        OpBackendError: mmcv was asked for by name and cannot run on this device.
    """
    geometry = ConvGeometry(tuple(weight.shape[2:]), _pair(stride), _pair(padding), _pair(dilation))
    _check(x, offset, modulation, weight, bias, geometry, groups, deform_groups)
    device_type = x.device.type
    backend = op_backend(DCN, x.device)
    dtype = x.dtype
    if torch.is_autocast_enabled(device_type) and dtype is not torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
    with torch.autocast(device_type, enabled=False):
        if x.numel() == 0 or offset.numel() == 0:
            out = _nothing(x, offset, modulation, weight, bias).to(dtype)
        elif backend == "mmcv":
            out = _mmcv(x, offset, modulation, weight, bias, geometry, groups, deform_groups).to(dtype)
        else:
            bias = None if bias is None else bias.to(dtype)
            x, weight = x.to(dtype), weight.to(dtype)
            out = _pytorch(x, offset, modulation, weight, bias, geometry, groups, deform_groups)
    return out.contiguous(memory_format=_memory_format(x))


def _pytorch(
    x: Tensor,
    offset: Tensor,
    modulation: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    groups: int,
    deform_groups: int,
) -> Tensor:
    """Columns by weighted sums of channels-last pixels, then one matrix product; image by image."""
    batch, channels, height, width = x.shape
    out_h, out_w = offset.shape[2:]
    taps, pixels = geometry.kernel[0] * geometry.kernel[1], out_h * out_w
    positions = torch.promote_types(offset.dtype, torch.float32)
    offset_B2NKG = (
        offset.to(positions).reshape(batch, deform_groups, taps, 2, pixels).permute(0, 3, 4, 2, 1).flip(1)
    )
    modulation_BNKG = modulation.to(positions).reshape(batch, deform_groups, taps, pixels).permute(0, 3, 2, 1)
    grid_2NK1 = geometry.tap_positions(height, width, offset_B2NKG).unsqueeze(-1)
    # Every tap samples the same map, so the plan is one map sampled K times by each deformable group.
    plan = RowPlan.build(
        [(height, width)], lanes=deform_groups, points=taps, like=offset_B2NKG, tap_major=True
    )
    # (groups, K·C/groups, O/groups), the taps outermost as in the columns.
    kernel = weight.view(groups, -1, channels // groups, taps).permute(0, 3, 2, 1).flatten(1, 2)

    def convolve(image_CHW: Tensor, offset_2nKG: Tensor, modulation_nKG: Tensor, grid_2nK1: Tensor) -> Tensor:
        table = image_CHW.permute(1, 2, 0).reshape(-1, channels // deform_groups)
        pixel = (offset_2nKG.contiguous() + grid_2nK1).flatten(2)
        rows, weights = bilinear_rows(pixel, modulation_nKG.flatten(1), plan)
        columns = weighted_rows(table, rows, weights).view(-1, taps * channels)
        if groups == 1:
            return columns @ kernel[0] if bias is None else torch.addmm(bias, columns, kernel[0])
        split = columns.view(-1, taps, groups, channels // groups).permute(2, 0, 1, 3).flatten(2)
        out = torch.bmm(split, kernel).transpose(0, 1).flatten(1)
        return out if bias is None else out + bias

    inputs = (x, offset, modulation, weight) + (() if bias is None else (bias,))
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    small = x.device.type == "cpu" and not needs_grad
    chunk = PIXELS_PER_CHUNK if small else pixels
    pieces = []
    for image, image_offset, image_modulation in zip(x, offset_B2NKG, modulation_BNKG, strict=True):
        if needs_grad:
            # The columns are K times the input; they are computed again rather than kept for backward.
            args = (image, image_offset, image_modulation, grid_2NK1)
            pieces.append(checkpoint(convolve, *args, use_reentrant=False, preserve_rng_state=False))
            continue
        image = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # channels-last once, not once a chunk
        for start in range(0, pixels, chunk):
            part = slice(start, start + chunk)
            pieces.append(convolve(image, image_offset[:, part], image_modulation[part], grid_2NK1[:, part]))
    return torch.cat(pieces).view(batch, out_h, out_w, -1).permute(0, 3, 1, 2)


def _mmcv(
    x: Tensor,
    offset: Tensor,
    modulation: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    groups: int,
    deform_groups: int,
) -> Tensor:
    # mmcv adds the offsets to pixel positions in its inputs' type; in half precision that is coarser than an
    # eighth of a pixel from column 256 on. So the whole operator runs in float32 at least.
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, offset, modulation, weight = (t.to(dtype).contiguous() for t in (x, offset, modulation, weight))
    bias = None if bias is None else bias.to(dtype)
    placement = (geometry.stride, geometry.padding, geometry.dilation)
    return mmcv_function(DCN)(x, offset, modulation, weight, bias, *placement, groups, deform_groups)


def _nothing(x: Tensor, offset: Tensor, *others: Tensor | None) -> Tensor:
    """An empty output that is still connected to every input, so that backward runs."""
    nothing = sum(t.flatten()[:0].sum() for t in (x, offset, *others) if t is not None)
    return x.new_zeros(x.shape[0], others[1].shape[0], *offset.shape[2:]) + nothing


def _memory_format(x: Tensor) -> torch.memory_format:
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _check(
    x: Tensor,
    offset: Tensor,
    modulation: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: ConvGeometry,
    groups: int,
    deform_groups: int,
) -> None:
    if x.dim() != 4 or weight.dim() != 4:
        shapes = f"x {tuple(x.shape)}, weight {tuple(weight.shape)}"
        raise ShapeMismatch(f"modulated_deform_conv2d: x and weight need four dimensions, got {shapes}")
    channels, taps = x.shape[1], geometry.kernel[0] * geometry.kernel[1]
    out = geometry.output_size(*x.shape[2:])
    if min(out) < 1:
        raise ShapeMismatch(
            f"modulated_deform_conv2d: input {tuple(x.shape)} is too small, output would be {out}"
        )
    expected = {
        "offset": (offset, (x.shape[0], 2 * deform_groups * taps, *out)),
        "modulation": (modulation, (x.shape[0], deform_groups * taps, *out)),
        "weight": (weight, (weight.shape[0], channels // groups, *geometry.kernel)),
    }
    if bias is not None:
        expected["bias"] = (bias, (weight.shape[0],))
    problems = [
        f"{name}: expected {shape}, got {tuple(tensor.shape)}"
        for name, (tensor, shape) in expected.items()
        if tuple(tensor.shape) != shape
    ]
    for what, number in (("groups", groups), ("deform_groups", deform_groups)):
        if channels % number:
            problems.append(f"{what}: {number} does not divide the {channels} input channels")
    if weight.shape[0] % groups:
        problems.append(f"groups: {groups} does not divide the {weight.shape[0]} output channels")
    if problems:
        raise ShapeMismatch("modulated_deform_conv2d: " + "; ".join(problems))
