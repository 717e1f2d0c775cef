"""The demo's student: a quarter of the teacher's pixels, half its channels and a smaller BEV map."""
_base_ = './teacher.py'

model = dict(
    img_backbone=dict(
        base_channels=16,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        stage_with_dcn=(False, False),
        out_indices=(0, 1)),
    img_neck=dict(in_channels=[16, 32]),
    pv_strides=(4, 8),
    pts_bbox_head=dict(bev_hw=(16, 16), encoder_layers=1))

inputs = dict(scale=0.5, pad_hw=(64, 112))

queue_length = 2  # a frame of history: cheaper, and what it is compared with has it too
train_cfg = dict(max_epochs=2, val_interval=2)
