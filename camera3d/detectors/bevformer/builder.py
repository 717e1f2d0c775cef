"""Puts a BEVFormer head together: the one place that knows which part gets which number."""

from __future__ import annotations

from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers import LearnedPositionalEncoding

from camera3d.detectors.bevformer.attention import SpatialCrossAttention, TemporalSelfAttention
from camera3d.detectors.bevformer.encoder import BEVFormerEncoder, BEVFormerLayer
from camera3d.detectors.bevformer.head import BEVFormerHead
from camera3d.detectors.bevformer.transformer import BEVFormerTransformer
from camera3d.detectors.query_based.bev_decoder import build_object_decoder
from camera3d.detectors.query_based.branches import CODE_WEIGHTS
from camera3d.detectors.query_based.counts import require_counts


def build_bevformer_head(
    *,
    point_cloud_range: tuple[float, ...],
    num_classes: int,
    num_cameras: int,
    bev_hw: tuple[int, int],
    num_queries: int = 900,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    embed_dims: int = 256,
    num_heads: int = 8,
    ffn_dims: int = 512,
    num_levels: int = 4,
    temporal_points: int = 4,
    pillar_points: int = 8,
    pillar_heights: int = 4,
    decoder_points: int = 4,
    dropout: float = 0.1,
) -> BEVFormerHead:
    """A head with random weights; the defaults are BEVFormer-Base's, `bev_hw` aside.

    Args:
        bev_hw: cells of the BEV map along y and x.
        pillar_heights: points a BEV cell's pillar is projected at; `pillar_points` must be a multiple of it.

    Raises ConfigInvalid when a number cannot be.
    """
    require_counts(
        embed_dims=embed_dims,
        num_heads=num_heads,
        num_queries=num_queries,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        **dict(zip(("bev_hw[0]", "bev_hw[1]"), bev_hw, strict=True)),
    )

    encoder = BEVFormerEncoder(
        layers=[
            BEVFormerLayer(
                temporal_attention=TemporalSelfAttention(
                    embed_dims=embed_dims, num_heads=num_heads, num_points=temporal_points, dropout=dropout
                ),
                spatial_attention=SpatialCrossAttention(
                    embed_dims=embed_dims,
                    num_heads=num_heads,
                    num_levels=num_levels,
                    num_points=pillar_points,
                    dropout=dropout,
                ),
                ffn=FFN(embed_dims=embed_dims, feedforward_channels=ffn_dims, num_fcs=2, ffn_drop=dropout),
                embed_dims=embed_dims,
            )
            for _ in range(encoder_layers)
        ],
        point_cloud_range=point_cloud_range,
        num_heights=pillar_heights,
    )
    decoder = build_object_decoder(
        layers=decoder_layers,
        embed_dims=embed_dims,
        num_heads=num_heads,
        ffn_dims=ffn_dims,
        points=decoder_points,
        dropout=dropout,
    )
    transformer = BEVFormerTransformer(
        encoder=encoder,
        decoder=decoder,
        embed_dims=embed_dims,
        num_levels=num_levels,
        num_cameras=num_cameras,
        rotate_center=(bev_hw[0] / 2, bev_hw[1] / 2),
        bev_size_m=(
            point_cloud_range[4] - point_cloud_range[1],
            point_cloud_range[3] - point_cloud_range[0],
        ),
    )
    return BEVFormerHead(
        transformer=transformer,
        positional_encoding=LearnedPositionalEncoding(
            embed_dims // 2, row_num_embed=bev_hw[0], col_num_embed=bev_hw[1]
        ),
        bev_hw=bev_hw,
        num_queries=num_queries,
        num_classes=num_classes,
        embed_dims=embed_dims,
        code_weights=CODE_WEIGHTS,
        point_cloud_range=point_cloud_range,
    )
