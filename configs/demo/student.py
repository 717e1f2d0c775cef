"""The demo's student: a quarter of the teacher's pixels, half its channels and a smaller BEV map."""
_base_ = './teacher.py'

model = dict(
    # No fourth stage: its output would be read by nothing.
    img_backbone=dict(
        base_channels=16,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        stage_with_dcn=(False, False, False),
        out_indices=(0, 1, 2)),
    img_neck=dict(in_channels=[16, 32, 64]),
    pv_strides=(4, 8, 16),
    pts_bbox_head=dict(bev_hw=(20, 20), encoder_layers=1))

inputs = dict(scale=0.25, pad_hw=(64, 112))
