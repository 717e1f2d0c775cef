"""Bilinear sampling as weighted sums of table rows.

Shapes: n sampled positions (queries, or output pixels), c columns (everything sampled at one position), k of
them to a bag, so n·c/k bags; R table rows of d channels.

A channels-last map is a table with one row a cell. Sampling it at a point is a sum of four rows with bilinear
weights, and an attention over k points a sum of 4k rows, which is what `embedding_bag` computes: it reads
whole rows, is vectorised over channels, and writes nothing but the result. `grid_sample` on channels-first
maps reads one scalar a channel and writes every sample before it is weighted.

Zero padding without masks: the corner pair is clamped into the map and each of its two cells gets the weight
max(0, 1 - distance), which is the bilinear weight inside, the right remainder on the border, and zero beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from camera3d.ops.constants import constant

# Cell numbers are computed in float32, which counts exactly up to here.
MAX_CELLS = 1 << 24


@dataclass(frozen=True)
class RowPlan:
    """Which table row belongs to which column and cell: row = base + (y · width + x) · lanes.

    `lanes` rows share a cell: the heads of an attention, the deformable groups of a convolution.
    """

    size_2c: Tensor  # (2, 1, c) float: width and height of the map that the column samples
    base_c: Tensor  # (c,) int32
    corner_4k: Tensor  # (4, k) int32: rows from the first corner to each of the four
    lanes: int
    keep_22k: Tensor | None  # (2, 1, 2, k): zero for the second corner of a map one cell wide or high

    @classmethod
    def build(
        cls,
        maps: Sequence[tuple[int, int]],
        *,
        lanes: int,
        points: int,
        like: Tensor,
        tap_major: bool = False,
    ) -> RowPlan:
        """Plan for `points` samples of each (height, width) in `maps`, which follow one another.

        Args:
            like: a tensor with the device and the float type of the coordinates.
            tap_major: columns are ordered (map, point, lane) and each is a bag of its own; otherwise they are
                ordered (lane, map, point) and a bag holds the samples of one lane.
        """
        if max(h * w for h, w in maps) >= MAX_CELLS:
            raise ValueError(f"a map of {MAX_CELLS} cells or more cannot be addressed: {list(maps)}")
        heights = constant([h for h, _ in maps], like, torch.long).repeat_interleave(points)
        widths = constant([w for _, w in maps], like, torch.long).repeat_interleave(points)
        starts = [0]
        for h, w in maps:
            starts.append(starts[-1] + h * w)
        start = constant(starts[:-1], like, torch.long).repeat_interleave(points) * lanes
        lane = torch.arange(lanes, device=like.device)
        if tap_major:
            size = torch.stack([widths, heights]).repeat_interleave(lanes, dim=1)
            base = (start[:, None] + lane).flatten()
            heights, widths = heights[:1], widths[:1]  # one sample a bag, and all maps alike
        else:
            size = torch.stack([widths, heights]).repeat(1, lanes)
            base = (start + lane[:, None]).flatten()
        right, down = (widths > 1).long(), widths * (heights > 1)
        corner = torch.stack([torch.zeros_like(right), right, down, down + right]) * lanes
        keep = None
        if min(min(pair) for pair in maps) == 1:
            exists = torch.stack([widths > 1, heights > 1])
            keep = torch.stack([torch.ones_like(exists), exists], dim=1)[:, None].to(like.dtype)
        return cls(size[:, None].to(like.dtype), base.int(), corner.int(), lanes, keep)


def bilinear_rows(pixel_2nc: Tensor, strength_nc: Tensor, plan: RowPlan) -> tuple[Tensor, Tensor]:
    """The rows to read and their weights: both (n·c/k, 4k), int32 and the coordinates' float type.

    Args:
        pixel_2nc: x and y in cells, cell centres at whole numbers; contiguous, and overwritten.
        strength_nc: what each sample is multiplied by (attention weight, modulation).

    Whatever the coordinates are, NaN and infinity included, the rows exist; NaN shows in the weights.
    """
    k = plan.corner_4k.shape[1]
    with torch.no_grad():
        first = torch.clamp(
            pixel_2nc, min=pixel_2nc.new_zeros(()), max=(plan.size_2c - 2).clamp_(min=0)
        ).floor_()
        cell = torch.addcmul(first[0], first[1], plan.size_2c[0])
        # A NaN converts to the smallest integer on some processors, hence the clamp.
        row = cell.to(torch.int32).clamp_(min=0).mul_(plan.lanes).add_(plan.base_c)
        rows = row.view(-1, 1, k) + plan.corner_4k
    weights_2b2k = _CornerWeights.apply(pixel_2nc.sub_(first).view(2, -1, k))
    if plan.keep_22k is not None:
        weights_2b2k = weights_2b2k * plan.keep_22k
    across, down = weights_2b2k[0].unsqueeze(1), weights_2b2k[1] * strength_nc.reshape(-1, 1, k)
    weights = down.unsqueeze(2) * across
    return rows.flatten(1), weights.flatten(1)


def weighted_rows(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """(bags, d): for every bag the sum of `table[rows] * weights`.

    Args:
        table: (R, d).
        rows: (bags, m) int32.
        weights: (bags, m), of any float type; converted to the table's.
    """
    return _WeightedRows.apply(table, rows, weights.to(table.dtype))


class _CornerWeights(torch.autograd.Function):
    """Weights of the two cells around a point on one axis, by its distance to the first: (…, k) -> (…, 2, k).

    The derivative at the kinks follows the interpolation formula: a point on a cell centre belongs to the
    interval on its right, and a point exactly one cell outside the map has none, as in mmcv's kernels. This
    matters: with offsets initialised to zero every sample of a deformable convolution lies on a kink.
    """

    @staticmethod
    def forward(ctx, distance: Tensor) -> Tensor:
        ctx.save_for_backward(distance)
        first_second = constant([[0.0], [1.0]], distance)
        return (distance.unsqueeze(-2) - first_second).abs_().clamp_(max=1).neg_().add_(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        (distance,) = ctx.saved_tensors
        before = ((distance > -1) & (distance < 0)).to(grad.dtype)
        inside = ((distance >= 0) & (distance < 1)).to(grad.dtype)
        after = ((distance >= 1) & (distance < 2)).to(grad.dtype)
        return grad[..., 0, :] * (before - inside) + grad[..., 1, :] * (inside - after)


class _WeightedRows(torch.autograd.Function):
    """`embedding_bag` with a faster backward for the table: the same sum over the transposed incidence.

    Sorting the rows stably turns "add into the rows" into "sum over the bags that read this row", which has
    a fixed order (so the same bits every run, on CUDA too) and is itself an `embedding_bag`.
    """

    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        grad = grad.contiguous()
        grad_table = grad_weights = None
        if rows.numel() == 0:
            return torch.zeros_like(table), None, torch.zeros_like(weights)
        if ctx.needs_input_grad[0]:
            sorted_rows, order = rows.flatten().sort(stable=True)
            bag = torch.div(order, rows.shape[1], rounding_mode="floor").int()
            wanted = torch.arange(table.shape[0], device=rows.device, dtype=torch.int32)
            offsets = torch.searchsorted(sorted_rows, wanted, out_int32=True)
            grad_table = F.embedding_bag(
                bag, grad, offsets, mode="sum", per_sample_weights=weights.flatten()[order]
            )
        if ctx.needs_input_grad[2]:
            with torch.enable_grad():
                leaf = weights.detach().requires_grad_()
                out = F.embedding_bag(rows, table.detach(), mode="sum", per_sample_weights=leaf)
                (grad_weights,) = torch.autograd.grad(out, leaf, grad)
        return grad_table, None, grad_weights
