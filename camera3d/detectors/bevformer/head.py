"""The detection head: learned queries, the transformer, and one class and one box branch a decoder layer.

Shapes: B batch, N cameras, C channels, H W BEV map size, Q object queries, L decoder layers.
"""

from __future__ import annotations

import torch
from mmdet.models.layers import LearnedPositionalEncoding
from torch import Tensor, nn

from camera3d.detectors.bevformer.transformer import BEVFormerTransformer
from camera3d.detectors.query_based.bev_decoder import query_outputs
from camera3d.detectors.query_based.branches import prediction_branches
from camera3d.detectors.query_based.detector import named_maps


class BEVFormerHead(nn.Module):
    """BEV map and query predictions from the FPN maps.

    Args:
        code_weights: factor on each of the 10 box numbers in the loss; kept with the weights, as released.
        point_cloud_range: x, y, z minimum, then maximum, in metres.
    """

    def __init__(
        self,
        *,
        transformer: BEVFormerTransformer,
        positional_encoding: LearnedPositionalEncoding,
        bev_hw: tuple[int, int],
        num_queries: int,
        num_classes: int,
        embed_dims: int,
        code_weights: tuple[float, ...],
        point_cloud_range: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.bev_hw = bev_hw
        self.point_cloud_range = point_cloud_range
        self.code_weights = nn.Parameter(torch.tensor(code_weights), requires_grad=False)
        self.positional_encoding = positional_encoding
        # As released; mmengine's own initialisation does not reach below a plain module.
        for embedding in (positional_encoding.row_embed, positional_encoding.col_embed):
            nn.init.uniform_(embedding.weight)
        self.transformer = transformer
        num_layers = len(transformer.decoder.layers)
        self.cls_branches, self.reg_branches = prediction_branches(
            num_layers, embed_dims=embed_dims, num_classes=num_classes, code_size=len(code_weights)
        )
        self.bev_embedding = nn.Embedding(bev_hw[0] * bev_hw[1], embed_dims)
        self.query_embedding = nn.Embedding(num_queries, 2 * embed_dims)

    def bev(
        self,
        pv_feats: list[Tensor],
        *,
        lidar2img: Tensor,
        can_bus: Tensor,
        image_hw: tuple[int, int],
        prev_bev: Tensor | None = None,
        has_prev: Tensor | None = None,
    ) -> Tensor:
        """The BEV map alone, (B, C, H, W); arguments as in `BEVFormerTransformer.encode_bev`."""
        grid = pv_feats[0].new_zeros(len(pv_feats[0]), *self.bev_hw)
        return self.transformer.encode_bev(
            pv_feats,
            self.bev_embedding.weight,
            self.positional_encoding(grid),
            lidar2img=lidar2img,
            can_bus=can_bus,
            image_hw=image_hw,
            prev_bev_BCHW=prev_bev,
            has_prev_B=has_prev,
        )

    def objects(self, pv_feats: list[Tensor], bev_feats: Tensor) -> dict[str, Tensor]:
        """The outputs of `BEVFormer.output_specs`: query predictions from a BEV map, and the maps."""
        trace = self.transformer.decode_objects(bev_feats, self.query_embedding.weight, self.reg_branches)
        return {
            **named_maps(pv_feats),
            "bev_feats": bev_feats,
            **query_outputs(trace, self.cls_branches, self.point_cloud_range),
        }
