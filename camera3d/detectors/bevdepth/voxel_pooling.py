"""Voxel pooling: every frustum point adds its feature to the BEV cell that it lies in.

Shapes: B batch, N cameras, D depth bins, h w cells of the image map, C channels, Y X cells of the BEV map.
Source: Li et al., BEVDepth, AAAI 2023, section 4.4; a scatter-add in place of its CUDA kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from camera3d.ops.constants import constant


def voxel_index(points: Tensor, low: Tensor, size: Tensor) -> Tensor:
    """Cells (..., 3), x first, int32, of points in metres; they may lie outside the grid.

    Truncated towards zero: points up to one cell below a lower border count as cell 0. The released weights
    were trained so, and rounding down changes a map by a quarter.

    Args:
        low: (3,) x, y, z minimum of the grid.
        size: (3,) of a cell.
    """
    # A cast to an integer is undefined for what no integer holds, as a camera's points at the horizon may.
    cells = ((points - low) / size).nan_to_num(-9.0, posinf=1e9, neginf=-1e9).clamp(-1e9, 1e9)
    return cells.int()


def voxel_pooling(
    index: Tensor, lifted: Callable[[int], Tensor], grid_xyz: tuple[int, int, int], channels: int
) -> Tensor:
    """(B, C, Y, X) float32: sums over all cameras, bins and pixels; cells that nothing falls into are zero.

    Camera by camera, so that the products of all of them never lie in memory together. With
    `torch.use_deterministic_algorithms` sums are added up in one order on a GPU too; on a CPU they always
    are.

    Args:
        index: (B, N, D, h, w, 3), see `voxel_index`.
        lifted: features (B, D, h, w, C) of a camera, by its number.
        grid_xyz: cells of the grid along x, y, z; there is one along z.
    """
    batch = len(index)
    width, height, _ = grid_xyz
    inside = ((index >= 0) & (index < constant(grid_xyz, index))).all(-1)
    # A row more than there are cells takes what falls outside: no shape depends on how much that is.
    rows = height * width + 1
    cell = (index[..., 1].long() * width + index[..., 0]).where(inside, rows - 1)
    cell = cell + torch.arange(batch, device=index.device).view(-1, 1, 1, 1, 1) * rows
    pooled = torch.zeros(batch * rows, channels, device=index.device)
    for camera in range(index.shape[1]):
        feats = lifted(camera).float().reshape(-1, channels)
        pooled = pooled.index_add(0, cell[:, camera].reshape(-1), feats)
    cells = pooled.view(batch, rows, channels)[:, :-1]
    return cells.view(batch, height, width, channels).permute(0, 3, 1, 2).contiguous()
