"""The object decoder: queries attend to each other and to the BEV map, and refine their boxes layer by layer.

Shapes: B batch, Q object queries, C channels, S = H·W positions of the BEV map.
Source: Zhu et al., Deformable DETR, ICLR 2021, with box refinement in 3D. Parameter names are those of the
official checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from torch import Tensor, nn

from camera3d.detectors.query_based.deformable import ObjectDeformableAttention
from camera3d.detectors.query_based.refinement import centres_to_metres, refine
from camera3d.detectors.query_based.start import HEAD

# Of a decoder layer's attention to the BEV map.
VALUE_PROJECTION = f"{HEAD}transformer.decoder.layers.{{}}.attentions.1.value_proj."


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


def build_object_decoder(
    *, layers: int, embed_dims: int, num_heads: int, ffn_dims: int, points: int, dropout: float
) -> ObjectDecoder:
    """A decoder with random weights; `points` are those that a head of a query reads in every layer."""
    return ObjectDecoder(
        layers=[
            ObjectDecoderLayer(
                self_attention=MultiheadAttention(
                    embed_dims,
                    num_heads,
                    attn_drop=dropout,
                    dropout_layer={"type": "Dropout", "drop_prob": dropout},
                    batch_first=True,
                ),
                cross_attention=ObjectDeformableAttention(
                    embed_dims=embed_dims, num_heads=num_heads, num_points=points, dropout=dropout
                ),
                ffn=FFN(embed_dims=embed_dims, feedforward_channels=ffn_dims, num_fcs=2, ffn_drop=dropout),
                embed_dims=embed_dims,
            )
            for _ in range(layers)
        ]
    )


def decode_objects(
    decoder: ObjectDecoder,
    reference_points: nn.Linear,
    bev_BCHW: Tensor,
    query_embeds_Q2C: Tensor,
    reg_branches: nn.ModuleList,
) -> DecoderTrace:
    """Run a decoder on a BEV map. An embedding is a position, first half, and a content.

    Args:
        reference_points: from the position to the logits of a point of the point-cloud range.
    """
    query_pos, query = query_embeds_Q2C.expand(len(bev_BCHW), -1, -1).chunk(2, dim=-1)
    reference = reference_points(query_pos).float().sigmoid()
    bev_hw = tuple(bev_BCHW.shape[-2:])
    bev = bev_BCHW.flatten(2).transpose(1, 2)
    return decoder(query, query_pos, bev, reference, reg_branches, bev_hw)


def query_outputs(
    trace: DecoderTrace, cls_branches: nn.ModuleList, point_cloud_range: Sequence[float]
) -> dict[str, Tensor]:
    """What a decoder did, by the names of `QueryPredictions.prediction_specs` and `sampling_specs`."""
    logits = torch.stack(
        [branch(feats) for branch, feats in zip(cls_branches, trace.query_feats.unbind(1), strict=True)],
        dim=1,
    )
    return {
        "query_logits": logits.float(),
        "query_boxes": centres_to_metres(trace.boxes_normalised, point_cloud_range),
        "query_feats": trace.query_feats,
        "reference_points": trace.reference_points,
        "sampling_locations": trace.sampling_locations,
        "attention_weights": trace.attention_weights,
        "focal_feats": trace.focal_feats,
    }


def value_projections(weights: Mapping[str, Tensor]) -> list[nn.Linear]:
    """What a head does to the BEV map before the queries of each layer read it: frozen, in single precision.

    Args:
        weights: of the head, as `head_weights` of a detector gives them.
    """
    projections: list[nn.Linear] = []
    while f"{(key := VALUE_PROJECTION.format(len(projections)))}weight" in weights:
        weight = weights[f"{key}weight"]
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": weights[f"{key}bias"]})
        projections.append(layer.requires_grad_(False))
    return projections
