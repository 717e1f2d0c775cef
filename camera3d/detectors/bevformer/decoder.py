"""The object decoder: queries attend to each other and to the BEV map, and refine their boxes layer by layer.

Shapes: B batch, Q object queries, C channels, S = H·W positions of the BEV map.
Source: Zhu et al., Deformable DETR, ICLR 2021, with box refinement in 3D as in the official BEVFormer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from torch import Tensor, nn

from camera3d.detectors.bevformer.attention import ObjectDeformableAttention
from camera3d.detectors.query_based.refinement import refine


class DecoderTrace(NamedTuple):
    """What each of L layers did, of M heads and P sampling points.

    query_feats: (B, L, Q, C).
    boxes_normalised: (B, L, Q, 10), the official encoding with the centre still in [0, 1] of the range.
    reference_points: (B, L, Q, 3), what each layer sampled around, in [0, 1] of the point-cloud range.
    sampling_locations: (B, L, Q, M, 1, P, 2), x then y in [0, 1] of the BEV map.
    attention_weights: (B, L, Q, M, 1, P), summing to one over P.
    focal_feats: (B, L, Q, C), what those locations and weights read from the projected BEV map.
    """

    query_feats: Tensor
    boxes_normalised: Tensor
    reference_points: Tensor
    sampling_locations: Tensor
    attention_weights: Tensor
    focal_feats: Tensor


class ObjectDecoderLayer(nn.Module):
    """Self-attention, deformable attention to the BEV map, feed-forward net, each with LayerNorm after it."""

    def __init__(
        self,
        *,
        self_attention: MultiheadAttention,
        cross_attention: ObjectDeformableAttention,
        ffn: FFN,
        embed_dims: int,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([self_attention, cross_attention])
        self.ffns = nn.ModuleList([ffn])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        bev_BSC: Tensor,
        reference_BQ2: Tensor,
        bev_hw: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The updated queries, then sampling locations, attention weights and what they read."""
        self_attention, cross_attention = self.attentions
        query = self.norms[0](self_attention(query_BQC, query_pos=query_pos_BQC, key_pos=query_pos_BQC))
        query, locations, weights, read = cross_attention(
            query, query_pos_BQC, bev_BSC, reference_BQ2, bev_hw
        )
        query = self.norms[2](self.ffns[0](self.norms[1](query)))
        return query, locations, weights, read


class ObjectDecoder(nn.Module):
    """A stack of `ObjectDecoderLayer` with box refinement between the layers."""

    def __init__(self, *, layers: list[ObjectDecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        bev_BSC: Tensor,
        reference_BQ3: Tensor,
        reg_branches: nn.ModuleList,
        bev_hw: tuple[int, int],
    ) -> DecoderTrace:
        """Decode; every layer looks around the centres that the layer before it found, see `refine`."""
        per_layer = []
        for layer, reg_branch in zip(self.layers, reg_branches, strict=True):
            query_BQC, locations, weights, read = layer(
                query_BQC, query_pos_BQC, bev_BSC, reference_BQ3[..., :2], bev_hw
            )
            box, center = refine(reg_branch(query_BQC), reference_BQ3)
            per_layer.append((query_BQC, box, reference_BQ3, locations, weights, read))
            reference_BQ3 = center
        return DecoderTrace(*(torch.stack(items, dim=1) for items in zip(*per_layer, strict=True)))
