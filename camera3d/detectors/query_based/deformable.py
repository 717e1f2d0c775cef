"""Deformable attention of object queries to a BEV map, and what all deformable attentions start from.

Shapes: B batch, Q queries, C channels, M heads, L levels, P sampling points, S positions of a flattened map.
Source: Zhu et al., Deformable DETR, ICLR 2021, eq. 2-3. Parameter names are those of the official
checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from camera3d.ops import multi_scale_deformable_attention
from camera3d.ops.constants import constant

MapShapes = Sequence[tuple[int, int]]


def offset_normalizer(map_shapes: MapShapes, like: Tensor) -> Tensor:
    """(L, 2): width, height of each level, which turn offsets in cells into fractions of the map."""
    return constant([(width, height) for height, width in map_shapes], like)


def init_sampling(offsets: nn.Linear, weights: nn.Linear, heads: int, groups: int, points: int) -> None:
    """Start with head m looking in direction m, point p at distance p + 1, all points weighted alike.

    Args:
        groups: how many (level or frame) groups repeat the same pattern.
    """
    angle = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
    direction = direction / direction.abs().amax(dim=-1, keepdim=True)
    distance = torch.arange(1, points + 1, dtype=torch.float32)
    pattern = direction[:, None, None] * distance[None, None, :, None]
    nn.init.zeros_(offsets.weight)
    offsets.bias.data = pattern.expand(heads, groups, points, 2).reshape(-1).clone()
    nn.init.zeros_(weights.weight)
    nn.init.zeros_(weights.bias)


def init_projection(*projections: nn.Linear) -> None:
    for projection in projections:
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(projection.bias)


class ObjectDeformableAttention(nn.Module):
    """Object queries sample the BEV map around their reference points.

    Also returns what a distillation loss needs: the sampling locations, the weights and what they read.
    """

    def __init__(self, *, embed_dims: int, num_heads: int, num_points: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.num_points = num_heads, num_points
        self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_points * 2)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_points)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        init_sampling(self.sampling_offsets, self.attention_weights, self.num_heads, 1, self.num_points)
        init_projection(self.value_proj, self.output_proj)

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        bev_BSC: Tensor,
        reference_BQ2: Tensor,
        bev_hw: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries (B, Q, C), locations (B, Q, M, 1, P, 2), weights (B, Q, M, 1, P), and what was read."""
        B, Q, C = query_BQC.shape
        M, P = self.num_heads, self.num_points
        located = query_BQC + query_pos_BQC
        value = self.value_proj(bev_BSC).view(B, -1, M, C // M)
        offsets = self.sampling_offsets(located).view(B, Q, M, 1, P, 2)
        weights = self.attention_weights(located).view(B, Q, M, P).softmax(-1).unsqueeze(3)
        offsets = offsets / offset_normalizer([bev_hw], offsets)[:, None]
        locations = reference_BQ2[:, :, None, None, None] + offsets
        read = multi_scale_deformable_attention(value, [bev_hw], locations, weights)
        return query_BQC + self.dropout(self.output_proj(read)), locations, weights, read
