"""What the DETR3D configurations have in common: classes, range, ResNet-101 with DCNv2, FPN, head, full-size images.

The attention weights are learnt a camera slot: CAM_FRONT, CAM_FRONT_RIGHT, CAM_FRONT_LEFT, CAM_BACK,
CAM_BACK_LEFT, CAM_BACK_RIGHT.
"""
_base_ = './schedule_24ep.py'

class_names = (
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier',
    'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone')
point_cloud_range = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)

model = dict(
    type='DETR3D',
    class_names=class_names,
    point_cloud_range=point_cloud_range,
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=101,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN2d', requires_grad=False),
        norm_eval=True,
        style='caffe',
        dcn=dict(type='FocalDCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True)),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        start_level=0,
        add_extra_convs='on_output',
        num_outs=4,
        relu_before_extra_convs=True),
    pv_strides=(8, 16, 32, 64),
    pts_bbox_head=dict(decoder_layers=6, num_queries=900),
    # Which boxes a checkpoint predicts: 'official', 'mmdet3d' (trained or converted with mmdet3d 1.x), or what its
    # own record says.
    checkpoint_boxes='auto')

# Images as the network wants them: BGR, mean in pixel values, 900×1600 padded at the bottom.
inputs = dict(
    scale=1.0,
    pad_hw=(928, 1600),
    mean=(103.530, 116.280, 123.675),
    std=(1.0, 1.0, 1.0),
    to_rgb=False)

queue_length = 1  # frames are seen one by one
train_cfg = dict(val_interval=2)
