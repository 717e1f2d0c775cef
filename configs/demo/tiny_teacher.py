"""A teacher that two CPU cores run in a second a frame: small images, ResNet-50, 50×50 BEV."""

_base_ = "../_base_/bevformer.py"

model = dict(
    img_backbone=dict(depth=50),
    pts_bbox_head=dict(bev_hw=(50, 50), encoder_layers=2, decoder_layers=2, num_queries=100),
)

inputs = dict(scale=1.0, pad_hw=(128, 224))
