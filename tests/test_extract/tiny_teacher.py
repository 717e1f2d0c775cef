"""A BEVFormer that sees little and thinks less: for tests of the dump, not of the detector."""

_base_ = "../../configs/_base_/bevformer.py"

model = dict(  # noqa: C408  as in the other configs
    img_backbone=dict(  # noqa: C408
        depth=18,
        out_indices=(3,),
        norm_cfg=dict(type="BN2d", requires_grad=True),  # noqa: C408
        style="pytorch",
        dcn=None,
        stage_with_dcn=(False, False, False, False),
    ),
    img_neck=dict(in_channels=[512], out_channels=32, num_outs=1),  # noqa: C408
    pv_strides=(32,),
    pts_bbox_head=dict(  # noqa: C408
        bev_hw=(8, 8), encoder_layers=1, decoder_layers=2, num_queries=12, embed_dims=32, ffn_dims=32
    ),
)
inputs = dict(  # noqa: C408
    scale=1.0, pad_hw=(64, 96), mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), to_rgb=True
)
