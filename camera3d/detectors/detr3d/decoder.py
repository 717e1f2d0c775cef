"""The decoder: queries attend to each other and to the images, and refine their boxes layer by layer.

Shapes: B batch, Q object queries, C channels, L decoder layers.
Source: Wang et al., DETR3D, CoRL 2021, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from torch import Tensor, nn

from camera3d.detectors.detr3d.attention import CameraCrossAttention, ImageTable, LayerReads
from camera3d.detectors.query_based.refinement import refine


class DecoderTrace(NamedTuple):
    """What each of L layers did.

    query_feats: (B, L, Q, C).
    boxes_normalised: (B, L, Q, 10), the official encoding with the centre still in [0, 1] of the range.
    reference_points: (B, L, Q, 3), what each layer sampled around, in [0, 1] of the point-cloud range.
    reads: `LayerReads`, each of its arrays with L behind B.
    """

    query_feats: Tensor
    boxes_normalised: Tensor
    reference_points: Tensor
    reads: LayerReads


class DecoderLayer(nn.Module):
    """Self-attention, attention to the images, feed-forward net, each with LayerNorm after it."""

    def __init__(
        self,
        *,
        self_attention: MultiheadAttention,
        cross_attention: CameraCrossAttention,
        ffn: FFN,
        embed_dims: int,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([self_attention, cross_attention])
        self.ffns = nn.ModuleList([ffn])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self, query_BQC: Tensor, query_pos_BQC: Tensor, reference_BQ3: Tensor, images: ImageTable
    ) -> tuple[Tensor, LayerReads]:
        """The updated queries, and where and what the cross-attention read."""
        self_attention, cross_attention = self.attentions
        query = self.norms[0](self_attention(query_BQC, query_pos=query_pos_BQC, key_pos=query_pos_BQC))
        query, reads = cross_attention(query, query_pos_BQC, reference_BQ3, images)
        return self.norms[2](self.ffns[0](self.norms[1](query))), reads


class Decoder(nn.Module):
    """A stack of `DecoderLayer` with box refinement between the layers."""

    def __init__(self, *, layers: list[DecoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        reference_BQ3: Tensor,
        images: ImageTable,
        reg_branches: nn.ModuleList,
    ) -> DecoderTrace:
        """Decode; every layer looks at the centres that the layer before it found, see `refine`."""
        states, boxes, references, reads = [], [], [], []
        for layer, reg_branch in zip(self.layers, reg_branches, strict=True):
            references.append(reference_BQ3)
            query_BQC, read = layer(query_BQC, query_pos_BQC, reference_BQ3, images)
            box, reference_BQ3 = refine(reg_branch(query_BQC), reference_BQ3)
            states.append(query_BQC)
            boxes.append(box)
            reads.append(read)
        stacked = LayerReads(*(torch.stack(arrays, dim=1) for arrays in zip(*reads, strict=True)))
        arrays = (torch.stack(layers, dim=1) for layers in (states, boxes, references))
        return DecoderTrace(*arrays, stacked)


class Transformer(nn.Module):
    """The decoder and the layer that gives every query its first reference point."""

    def __init__(self, *, decoder: Decoder, embed_dims: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.reference_points = nn.Linear(embed_dims, 3)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier for every matrix, then the cross-attentions' own start."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, CameraCrossAttention):
                module.init_weights()
        nn.init.zeros_(self.reference_points.bias)

    def forward(
        self, query_embeds_Qx2C: Tensor, images: ImageTable, reg_branches: nn.ModuleList
    ) -> DecoderTrace:
        """Run the decoder. An embedding is a position, first half, and a content."""
        batch_size = len(images.lidar2img_BN44)
        query_pos, query = query_embeds_Qx2C.expand(batch_size, -1, -1).chunk(2, dim=-1)
        reference = self.reference_points(query_pos).float().sigmoid()
        return self.decoder(query, query_pos, reference, images, reg_branches)
