"""Features to BEV map to decoder states: what lies between the FPN and the prediction branches.

Shapes: B batch, N cameras, C channels, H W BEV map size, Q object queries.
Source: Li et al., BEVFormer, ECCV 2022, figure 2.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from camera3d.detectors.bevformer.encoder import BEVFormerEncoder
from camera3d.detectors.bevformer.temporal import ego_shift, rotate_bev
from camera3d.detectors.query_based.bev_decoder import DecoderTrace, ObjectDecoder, decode_objects

CAN_BUS_NUMBERS = 18


class BEVFormerTransformer(nn.Module):
    """Encoder, decoder and the embeddings around them.

    Args:
        rotate_center: (x, y) in cells about which the previous BEV turns. The official configs give
            (BEV h / 2, BEV w / 2).
        bev_size_m: extent of the map along y and x, in metres.
    """

    def __init__(
        self,
        *,
        encoder: BEVFormerEncoder,
        decoder: ObjectDecoder,
        embed_dims: int,
        num_levels: int,
        num_cameras: int,
        rotate_center: tuple[float, float],
        bev_size_m: tuple[float, float],
    ) -> None:
        super().__init__()
        self.level_embeds = nn.Parameter(torch.empty(num_levels, embed_dims))
        self.cams_embeds = nn.Parameter(torch.empty(num_cameras, embed_dims))
        self.encoder = encoder
        self.decoder = decoder
        self.reference_points = nn.Linear(embed_dims, 3)
        self.can_bus_mlp = nn.Sequential(
            OrderedDict(
                [
                    ("0", nn.Linear(CAN_BUS_NUMBERS, embed_dims // 2)),
                    ("1", nn.ReLU(inplace=True)),
                    ("2", nn.Linear(embed_dims // 2, embed_dims)),
                    ("3", nn.ReLU(inplace=True)),
                    ("norm", nn.LayerNorm(embed_dims)),
                ]
            )
        )
        self.rotate_center = rotate_center
        self.bev_size_m = bev_size_m
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier for every matrix, then each attention's own start, then normal embeddings."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if module is not self and hasattr(module, "sampling_offsets"):
                module.init_weights()
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)
        nn.init.zeros_(self.reference_points.bias)

    def encode_bev(
        self,
        pv_feats: list[Tensor],
        bev_queries_SC: Tensor,
        bev_pos_BCHW: Tensor,
        *,
        lidar2img: Tensor,
        can_bus: Tensor,
        image_hw: tuple[int, int],
        prev_bev_BCHW: Tensor | None,
        has_prev_B: Tensor | None,
    ) -> Tensor:
        """The BEV map, (B, C, H, W).

        Args:
            pv_feats: one (B, N, C, h, w) a level.
            bev_queries_SC: learned queries, one a cell.
            prev_bev_BCHW: the map of the frame before as this method returned it, not yet aligned.
            has_prev_B: bool, false for samples whose previous map is to be ignored; None means all have one.
        """
        bev_hw = tuple(bev_pos_BCHW.shape[-2:])
        query = bev_queries_SC + self.can_bus_mlp(can_bus.to(bev_queries_SC.dtype))[:, None]
        value, map_shapes = self._flatten_levels(pv_feats)
        prev_bev = None
        if prev_bev_BCHW is not None:
            turned = rotate_bev(prev_bev_BCHW, can_bus[:, -1], self.rotate_center)
            prev_bev = turned.flatten(2).transpose(1, 2)
        bev = self.encoder(
            query,
            bev_pos_BCHW.flatten(2).transpose(1, 2),
            value,
            lidar2img=lidar2img,
            image_hw=image_hw,
            map_shapes=map_shapes,
            bev_hw=bev_hw,
            shift_B2=ego_shift(can_bus, self.bev_size_m),
            prev_bev_BQC=prev_bev,
            has_prev_B=has_prev_B,
        )
        return bev.transpose(1, 2).unflatten(2, bev_hw)

    def decode_objects(
        self, bev_BCHW: Tensor, query_embeds_Q2C: Tensor, reg_branches: nn.ModuleList
    ) -> DecoderTrace:
        """Run the decoder on a BEV map, see `query_based.bev_decoder.decode_objects`."""
        return decode_objects(self.decoder, self.reference_points, bev_BCHW, query_embeds_Q2C, reg_branches)

    def _flatten_levels(self, pv_feats: list[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
        """(B, N, S, C) with camera and level embeddings added, and the (h, w) of each level."""
        flat = [
            feats.flatten(3).transpose(2, 3) + self.cams_embeds[:, None] + self.level_embeds[level]
            for level, feats in enumerate(pv_feats)
        ]
        return torch.cat(flat, dim=2), [tuple(feats.shape[-2:]) for feats in pv_feats]
