"""BEVFormer-Small as FocalDistiller trains it: half-size images, FPN on four stages, 100×100 BEV, 3 layers."""
_base_ = ['../_base_/bevformer.py', '../_base_/schedule_24ep.py']

model = dict(
    img_backbone=dict(out_indices=(0, 1, 2, 3), frozen_stages=0),
    img_neck=dict(in_channels=[256, 512, 1024, 2048], add_extra_convs=False, relu_before_extra_convs=False),
    pv_strides=(4, 8, 16, 32),
    pts_bbox_head=dict(bev_hw=(100, 100), encoder_layers=3))

inputs = dict(scale=0.5, pad_hw=(464, 800))
