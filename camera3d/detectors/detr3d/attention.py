"""DETR3D's cross-attention: every query reads the image maps at the projections of one 3D point.

Shapes: B batch, N cameras, Q object queries, C channels, V image levels, S cells of all levels of an image,
R pairs of a query and a camera.
Source: Wang et al., DETR3D, CoRL 2021, eq. 5-7, with the learnt weights of the released code. Parameter names
are those of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from camera3d.detectors.detr3d.projection import project
from camera3d.detectors.query_based.refinement import inverse_sigmoid
from camera3d.ops.bilinear import RowPlan, bilinear_rows, weighted_rows


class LayerReads(NamedTuple):
    """Where the cross-attention looked and what it saw.

    points: (B, Q, N, 2), x then y in [0, 1] of the input image; zero where not visible.
    visible: (B, Q, N) bool, whether the camera sees the query's reference point.
    weights: (B, Q, N, V), after the sigmoid and before anything is left out as not visible.
    focal_feats: (B, Q, C), the weighted sum over cameras and levels, before the output projection.
    """

    points: Tensor
    visible: Tensor
    weights: Tensor
    focal_feats: Tensor


class ImageTable(NamedTuple):
    """The maps of all images with one row a cell, which every decoder layer reads.

    cells_BNSxC: (B·N·S, C); image by image, in each the levels behind one another, each row by row.
    map_shapes: (height, width) of each level.
    image_hw: size of the images that the maps cover.
    lidar2img_BN44: of the images.
    """

    cells_BNSxC: Tensor
    map_shapes: list[tuple[int, int]]
    image_hw: tuple[int, int]
    lidar2img_BN44: Tensor

    @classmethod
    def of_maps(cls, pv_feats: Sequence[Tensor], image_hw: tuple[int, int], lidar2img: Tensor) -> ImageTable:
        """From one (B, N, C, h, w) a level."""
        cells = torch.cat([feats.flatten(3).transpose(2, 3) for feats in pv_feats], dim=2)
        map_shapes = [tuple(feats.shape[-2:]) for feats in pv_feats]
        return cls(cells.flatten(0, 2), map_shapes, image_hw, lidar2img)

    def read(self, points_BQN2: Tensor, visible_BQN: Tensor, weights_BQNV: Tensor) -> Tensor:
        """(B, Q, C): the weighted sum over levels and the cameras that see the point; zero if none does.

        Bilinear, cells outside a map count as zero. In place of a camera that does not see the point, one
        that does is read again with weight zero: to find the pairs of a query and a camera first takes
        longer, and makes a GPU's host wait in every layer.
        """
        B, Q, N = visible_BQN.shape
        seeing_BQ1 = visible_BQN.int().argmax(-1, keepdim=True)
        camera_BQN = torch.arange(N, device=visible_BQN.device).where(visible_BQN, seeing_BQ1)
        image_BQN = torch.arange(B, device=visible_BQN.device).view(B, 1, 1) * N + camera_BQN
        points_R2 = points_BQN2.flatten(0, 2)
        weights_RV = (weights_BQNV * visible_BQN[..., None]).flatten(0, 2)
        with torch.autocast(points_R2.device.type, enabled=False):
            plan = RowPlan.build(self.map_shapes, lanes=1, points=1, like=points_R2)
            pixel_2RV = (points_R2.T[..., None].contiguous() * plan.size_2c).sub_(0.5)
            rows, strengths = bilinear_rows(pixel_2RV, weights_RV.to(points_R2.dtype), plan)
            cells_an_image = sum(h * w for h, w in self.map_shapes)
            rows = rows + (image_BQN.view(-1, 1) * cells_an_image).int()
            read = weighted_rows(self.cells_BNSxC, rows.view(B * Q, -1), strengths.view(B * Q, -1))
        return read.view(B, Q, -1).where(visible_BQN.any(-1, keepdim=True), 0)


class CameraCrossAttention(nn.Module):
    """Queries read the images where their reference points are seen, weighted by camera slot and level."""

    def __init__(
        self,
        *,
        embed_dims: int,
        num_cameras: int,
        num_levels: int,
        point_cloud_range: tuple[float, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_cameras, self.num_levels = num_cameras, num_levels
        self.point_cloud_range = point_cloud_range
        self.attention_weights = nn.Linear(embed_dims, num_cameras * num_levels)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.position_encoder = nn.Sequential(
            nn.Linear(3, embed_dims),
            nn.LayerNorm(embed_dims),
            nn.ReLU(inplace=True),
            nn.Linear(embed_dims, embed_dims),
            nn.LayerNorm(embed_dims),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """All cameras and levels start with weight one half."""
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        nn.init.xavier_uniform_(self.output_proj.weight)
        nn.init.zeros_(self.output_proj.bias)

    def forward(
        self, query_BQC: Tensor, query_pos_BQC: Tensor, reference_BQ3: Tensor, images: ImageTable
    ) -> tuple[Tensor, LayerReads]:
        """The updated queries (B, Q, C), and where and what they read."""
        points, visible = project(
            reference_BQ3, images.lidar2img_BN44, self.point_cloud_range, images.image_hw
        )
        weights = self.attention_weights(query_BQC + query_pos_BQC).sigmoid()
        weights = weights.unflatten(-1, (self.num_cameras, self.num_levels))
        read = images.read(points, visible, weights)
        position = self.position_encoder(inverse_sigmoid(reference_BQ3))
        query = query_BQC + self.dropout(self.output_proj(read)) + position
        return query, LayerReads(points, visible, weights, read)
