"""Puts a DETR3D head together: the one place that knows which part gets which number."""

from __future__ import annotations

from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention

from camera3d.detectors.detr3d.attention import CameraCrossAttention
from camera3d.detectors.detr3d.decoder import Decoder, DecoderLayer, Transformer
from camera3d.detectors.detr3d.head import DETR3DHead
from camera3d.detectors.query_based.branches import CODE_WEIGHTS
from camera3d.detectors.query_based.counts import require_counts


def build_detr3d_head(
    *,
    point_cloud_range: tuple[float, ...],
    num_classes: int,
    num_cameras: int,
    num_levels: int,
    num_queries: int = 900,
    decoder_layers: int = 6,
    embed_dims: int = 256,
    num_heads: int = 8,
    ffn_dims: int = 512,
    dropout: float = 0.1,
) -> DETR3DHead:
    """A head with random weights; the defaults are the released ones.

    Raises ConfigInvalid when a number cannot be.
    """
    require_counts(
        embed_dims=embed_dims, num_heads=num_heads, num_queries=num_queries, decoder_layers=decoder_layers
    )
    layers = [
        DecoderLayer(
            self_attention=MultiheadAttention(
                embed_dims,
                num_heads,
                attn_drop=dropout,
                dropout_layer={"type": "Dropout", "drop_prob": dropout},
                batch_first=True,
            ),
            cross_attention=CameraCrossAttention(
                embed_dims=embed_dims,
                num_cameras=num_cameras,
                num_levels=num_levels,
                point_cloud_range=point_cloud_range,
                dropout=dropout,
            ),
            ffn=FFN(embed_dims=embed_dims, feedforward_channels=ffn_dims, num_fcs=2, ffn_drop=dropout),
            embed_dims=embed_dims,
        )
        for _ in range(decoder_layers)
    ]
    return DETR3DHead(
        transformer=Transformer(decoder=Decoder(layers=layers), embed_dims=embed_dims),
        num_queries=num_queries,
        num_classes=num_classes,
        embed_dims=embed_dims,
        code_weights=CODE_WEIGHTS,
        point_cloud_range=point_cloud_range,
    )
