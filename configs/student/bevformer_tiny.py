"""BEVFormer-Tiny: ResNet-50 without deformable convolution, one image level, 50×50 BEV, 3 layers."""
_base_ = ['../_base_/bevformer.py', '../_base_/schedule_24ep.py']

model = dict(
    img_backbone=dict(
        depth=50,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN2d', requires_grad=True),
        style='pytorch',
        dcn=None,
        stage_with_dcn=(False, False, False, False)),
    img_neck=dict(in_channels=[2048], num_outs=1),
    pv_strides=(32,),
    pts_bbox_head=dict(bev_hw=(50, 50), encoder_layers=3))

inputs = dict(
    scale=0.5,
    pad_hw=(480, 800),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    to_rgb=True)

queue_length = 3
