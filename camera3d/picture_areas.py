"""Where the instances are on a picture: 2D boxes as areas on its maps, and which cells are no padding.

Shapes: n boxes, H W map height and width. A cell i begins at pixel i · stride of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from camera3d.errors import ShapeMismatch


@torch.no_grad()
def box_areas(
    boxes: Tensor,
    *,
    image_hw: Tensor,
    valid_hw: Tensor,
    map_hws: Sequence[tuple[int, int]],
    strides: Sequence[float],
    margin_cells: float = 1.0,
) -> list[Tensor]:
    """For each level (1, H, W) bool: the cells of the picture whose centre lies in a box.

    Args:
        boxes: (n, 4) x1, y1, x2, y2 in pixels of the picture; n may be 0.
        image_hw: (2,) size of the picture; valid_hw: (2,) its size in the network's input.
        map_hws, strides: of each level.
        margin_cells: by how many cells of a level every side of a box is pushed out.

    Raises:
        ShapeMismatch: boxes are not (n, 4).
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise ShapeMismatch(f"boxes: expected (n, 4), got {tuple(boxes.shape)}")
    scale_xy = (valid_hw.to(boxes) / image_hw.to(boxes)).flip(0)
    corners_n4 = boxes * torch.cat((scale_xy, scale_xy))
    areas = []
    for (height, width), stride in zip(map_hws, strides, strict=True):
        low_n2, high_n2 = (corners_n4 / stride).split(2, dim=1)
        inside = []
        for axis, length in ((1, height), (0, width)):
            centre = torch.arange(length, device=boxes.device) + 0.5
            low, high = low_n2[:, axis, None] - margin_cells, high_n2[:, axis, None] + margin_cells
            inside.append(((centre >= low) & (centre <= high)).float())
        rows_nH, columns_nW = inside
        in_picture = valid_cells(valid_hw, (height, width), stride).to(boxes.device)
        areas.append(((rows_nH.T @ columns_nW > 0) & in_picture)[None])
    return areas


def valid_cells(valid_hw: Tensor, map_hw: tuple[int, int], stride: float) -> Tensor:
    """(H, W) bool: the cells that the picture reaches into; the others hold padding alone.

    Args:
        valid_hw: (2,) size of the picture in the network's input.
    """
    rows, columns = (
        torch.arange(length) * stride < size for length, size in zip(map_hw, valid_hw.tolist(), strict=True)
    )
    return rows[:, None] & columns
