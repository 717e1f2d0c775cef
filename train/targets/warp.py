"""Moves what a teacher said of a sample to where a student sees it that was shown the sample augmented.

A target that was computed without augmentation then stands for what the teacher would have said of the
augmented sample: exactly where a move takes cells to cells, such as mirrors and quarter turns of a square
map, and elsewhere as far as the teacher's maps move with what they show. Cells and points that the move takes
from outside of what the teacher saw are known, and left out of every loss.

Shapes: N cameras, C channels, h w cells of an image map, H W of a BEV map, L decoder layers, Q object
queries, M heads, P points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from camera3d.boxes import move_boxes, move_encoded
from camera3d.data.augmentation import Moves
from camera3d.ops.constants import constant

BOXES, REFERENCES = "query_boxes", "reference_points"
BEV_POINTS = "sampling_locations"
IMAGE_POINTS, VISIBLE = "image_points", "image_visible"
POINTS = (BEV_POINTS, IMAGE_POINTS, VISIBLE)
FAR_AWAY = -10.0  # in fractions of a map: what is read there is zero
# In cells: rounding takes no border cell for one outside.
SLACK = 1e-3


@dataclass(frozen=True, kw_only=True)
class TargetWarp:
    """Where the teacher's arrays lie, in what the student is shown.

    Attributes:
        image_hw: of the student's input, without augmentation.
        pixels: by the teacher's name of each image map, pixels of that input a cell.
        extents_m: by the teacher's name of each BEV map, and of positions in a box of the world: x, y, z
            minimum, then maximum.
        bev_map: the teacher's BEV map that its queries read; None when they read none.
        bev_hw: its cells along y and x.
    """

    image_hw: tuple[int, int]
    pixels: Mapping[str, float]
    extents_m: Mapping[str, tuple[float, ...]]
    bev_map: str | None = None
    bev_hw: tuple[int, int] = (1, 1)

    def map(self, name: str, values: Tensor, moves: Moves) -> Tensor:
        """A moved map, (N, C, h, w) of the cameras or (C, H, W) on the ground, in its own precision."""
        places = self._places(name, tuple(values.shape[-2:]), moves)
        maps = values if values.dim() == 4 else values[None]
        grid = (2 * places - 1).float()
        # The outer half of a border cell is that cell; half-precision places would be tenths of a cell off.
        moved = F.grid_sample(maps.float(), grid, padding_mode="border", align_corners=False)
        return moved.to(values.dtype).view(values.shape)

    def inside(self, name: str, map_hw: tuple[int, int], moves: Moves) -> Tensor:
        """(N, h, w) or (H, W) bool: cells of a moved map that the teacher saw."""
        places = self._places(name, map_hw, moves)
        slack = SLACK / constant(map_hw[::-1], places)
        seen = ((places >= -slack) & (places <= 1 + slack)).all(-1)
        return seen if name in self.pixels else seen[0]

    def queries(self, name: str, values: Tensor, moves: Moves) -> Tensor:
        """A moved array (L, Q, …) of the queries of a sample; what has no place stays as it is."""
        if name == BOXES:
            return move_encoded(values, moves.lidar)
        if name == REFERENCES:
            low, high = constant(self.extents_m[name], moves.lidar).view(2, 3)
            metres = _moved(low + values.double() * (high - low), moves.lidar)
            return ((metres - low) / (high - low)).to(values.dtype)
        if name == BEV_POINTS:
            # The student's map has something where the teacher's had ended.
            moved = self._bev_points(values, moves).to(values.dtype)
            return moved.where(self._read(values)[..., None], FAR_AWAY)
        if name == IMAGE_POINTS:
            return self._image_points(values, moves).to(values.dtype)
        return values

    def kept(self, arrays: Mapping[str, Tensor], moves: Moves) -> Tensor | None:
        """(Q,) bool: queries that read nothing which the student does not see; None: all, as none reads.

        Args:
            arrays: those of POINTS that there are, unmoved.
        """
        kept = None
        if BEV_POINTS in arrays:
            points = arrays[BEV_POINTS]
            kept = _every_query(~self._read(points) | self._read(self._bev_points(points, moves)))
        if IMAGE_POINTS in arrays:
            moved = self._image_points(arrays[IMAGE_POINTS], moves)
            there = ((moved >= -SLACK) & (moved <= 1 + SLACK)).all(-1)
            seen = _every_query(~arrays[VISIBLE].bool() | there)
            kept = seen if kept is None else kept & seen
        return kept

    @staticmethod
    def boxes(boxes: Tensor, moves: Moves) -> Tensor:
        """Moved boxes (n, 9); convention of camera3d.boxes."""
        return move_boxes(boxes, moves.lidar)

    def _places(self, name: str, map_hw: tuple[int, int], moves: Moves) -> Tensor:
        """(N or 1, h, w, 2) float64: where the cells of a moved map come from, x and y in [0, 1]."""
        height, width = map_hw
        device = moves.bev.device
        y = torch.arange(height, dtype=torch.float64, device=device)[:, None].expand(height, width) + 0.5
        x = torch.arange(width, dtype=torch.float64, device=device)[None].expand(height, width) + 0.5
        cells = torch.stack((x, y), dim=-1)
        if name in self.pixels:
            pixels = _moved_plane(cells * self.pixels[name], _inverse(moves.images))
            return pixels / (self.pixels[name] * constant((width, height), cells))
        low, size = self._ground(name, cells)
        metres = low + cells / constant((width, height), cells) * size
        return (_moved_plane(metres, _inverse(moves.bev[None])) - low) / size

    def _ground(self, name: str, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest x and y of a BEV map, and its sides, in metres."""
        low, high = constant(self.extents_m[name], like).view(2, 3)[:, :2]
        return low, high - low

    def _bev_points(self, points: Tensor, moves: Moves) -> Tensor:
        """(…, 2) float64 in [0, 1] of the BEV map that queries read."""
        exact = points.double()
        low, size = self._ground(self.bev_map, exact)
        return (_moved_plane(low + exact * size, moves.bev[None])[0] - low) / size

    def _image_points(self, points_LQN2: Tensor, moves: Moves) -> Tensor:
        """(L, Q, N, 2) float64 in [0, 1] of the student's input."""
        size = constant(self.image_hw[::-1], moves.images)
        pixels = points_LQN2.double() * size
        moved = torch.einsum("nij,lqnj->lqni", moves.images[:, :2, :2], pixels) + moves.images[:, :2, 3]
        return moved / size

    def _read(self, points: Tensor) -> Tensor:
        """(…) bool: points that read something of the BEV map, which fades to zero half a cell outside."""
        half = 0.5 / constant(self.bev_hw[::-1], points, torch.float64)
        return ((points > -half) & (points < 1 + half)).all(-1)


def _inverse(matrices: Tensor) -> Tensor:
    # The variant that does not make the host wait to learn whether a matrix is singular.
    return torch.linalg.inv_ex(matrices).inverse


def _moved(points: Tensor, matrix_44: Tensor) -> Tensor:
    return points @ matrix_44[:3, :3].T + matrix_44[:3, 3]


def _moved_plane(points: Tensor, matrices_N44: Tensor) -> Tensor:
    """(N, …, 2) of points (…, 2), by the x and y part of each matrix."""
    flat = points.reshape(-1, 2)
    moved = torch.einsum("nij,kj->nki", matrices_N44[:, :2, :2], flat) + matrices_N44[:, None, :2, 3]
    return moved.view(-1, *points.shape)


def _every_query(fine: Tensor) -> Tensor:
    """(Q,): whether all that follows a query in (L, Q, …) is true, in every layer."""
    return fine.flatten(2).all(-1).all(0)
