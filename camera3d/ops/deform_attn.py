"""Multi-scale deformable attention.

Shapes: B batch, S cells of all levels together, Q queries, H heads, L levels, P points, d channels a head.
Source: Zhu et al., Deformable DETR, ICLR 2021, eq. 3 (without the projections around it): every head sums
L·P bilinear samples of its value map, weighted by its attention. Locations are normalised so that (0, 0) is
the top left and (1, 1) the bottom right corner of every level; cells outside a level are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camera3d.errors import ShapeMismatch
from camera3d.ops.backend import MSDA, mmcv_function, op_backend
from camera3d.ops.bilinear import RowPlan, bilinear_rows, weighted_rows

# Sampled points handled at a time when no gradient is needed: the rows and weights of one chunk then stay in
# the processor's cache; from 2^15 to 2^19 the speed hardly changes. A GPU wants few, large launches.
POINTS_PER_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 23}


def multi_scale_deformable_attention(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Sample every level of `value` around every query and sum, head by head.

    Args:
        value: (B, S, H, d), the levels behind one another, each row by row.
        spatial_shapes: (height, width) of every level, Python integers.
        sampling_locations: (B, Q, H, L, P, 2), normalised x and y.
        attention_weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H·d) in the type of `value`. Coordinates are never rounded below float32, autocast or not.

    Raises:
        ShapeMismatch: shapes that do not belong together, all of them listed.
        OpBackendError: mmcv was asked for by name and cannot run on this device.
    """
    maps = [(int(h), int(w)) for h, w in spatial_shapes]
    _check(value, maps, sampling_locations, attention_weights)
    backend = op_backend(MSDA, value.device)
    empty = sampling_locations.numel() == 0 or value.numel() == 0
    with torch.autocast(value.device.type, enabled=False):
        if backend == "mmcv" and not empty:
            return _mmcv(value, maps, sampling_locations, attention_weights)
        return _pytorch(value, maps, sampling_locations, attention_weights)


def _pytorch(value: Tensor, maps: list[tuple[int, int]], locations: Tensor, attention: Tensor) -> Tensor:
    batch, cells, heads, channels = value.shape
    queries, _, levels, points = attention.shape[1:]
    if locations.numel() == 0:
        # Nothing is sampled; the empty sums keep the result connected to its inputs.
        nothing = sum(t.flatten()[:0].sum() for t in (value, locations, attention))
        return value.new_zeros(batch, queries, heads * channels) + nothing.to(value.dtype)

    dtype = torch.promote_types(locations.dtype, torch.float32)
    locations, attention = locations.to(dtype), attention.to(dtype)
    columns = heads * levels * points
    plan = RowPlan.build(maps, lanes=heads, points=points, like=locations)
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (value, locations, attention))
    # With gradients every chunk would add a gradient as large as the table: one chunk then.
    chunk = queries if needs_grad else max(1, POINTS_PER_CHUNK.get(value.device.type, 1 << 23) // columns)
    pieces = []
    for value_SHd, location_QHLP2, attention_QHLP in zip(value, locations, attention, strict=True):
        table = value_SHd.reshape(cells * heads, channels)
        for start in range(0, queries, chunk):
            xy = location_QHLP2[start : start + chunk].reshape(-1, columns, 2).permute(2, 0, 1).contiguous()
            pixel = (xy * plan.size_2c).sub_(0.5)
            strength = attention_QHLP[start : start + chunk].reshape(-1, columns)
            rows, weights = bilinear_rows(pixel, strength, plan)
            pieces.append(weighted_rows(table, rows, weights))
    return torch.cat(pieces).view(batch, queries, heads * channels)


def _mmcv(value: Tensor, maps: list[tuple[int, int]], locations: Tensor, attention: Tensor) -> Tensor:
    # mmcv would round the coordinates to the type of `value`; in half precision that is a tenth of a cell on
    # a map 200 cells wide. So the whole operator runs in float32 at least.
    dtype = torch.promote_types(value.dtype, torch.float32)
    shapes = torch.tensor(maps, device=value.device)
    area = shapes.prod(dim=1)
    out = mmcv_function(MSDA)(
        value.to(dtype).contiguous(),
        shapes,
        area.cumsum(0) - area,
        locations.to(dtype).contiguous(),
        attention.to(dtype).contiguous(),
        value.shape[0],  # images a kernel launch; must divide the batch
    )
    return out.to(value.dtype)


def _check(value: Tensor, maps: list[tuple[int, int]], locations: Tensor, attention: Tensor) -> None:
    problems = []
    if value.dim() != 4:
        problems.append(f"value: expected (B, S, heads, d), got {tuple(value.shape)}")
    if locations.dim() != 6 or locations.shape[-1] != 2:
        got = tuple(locations.shape)
        problems.append(f"sampling_locations: expected (B, Q, heads, levels, points, 2), got {got}")
    if attention.shape != locations.shape[:-1]:
        expected, got = tuple(locations.shape[:-1]), tuple(attention.shape)
        problems.append(f"attention_weights: expected {expected} as in sampling_locations, got {got}")
    if not maps or any(h < 1 or w < 1 for h, w in maps):
        problems.append(
            f"spatial_shapes: expected at least one (height, width) of positive numbers, got {maps}"
        )
    if not problems:
        cells = sum(h * w for h, w in maps)
        if value.shape[1] != cells:
            problems.append(f"value: spatial_shapes {maps} make {cells} cells, got {value.shape[1]}")
        expected = (value.shape[0], value.shape[2], len(maps))
        got = (locations.shape[0], *locations.shape[2:4])
        if got != expected:
            problems.append(f"sampling_locations: expected (B, heads, levels) = {expected}, got {got}")
    if problems:
        raise ShapeMismatch("multi_scale_deformable_attention: " + "; ".join(problems))
