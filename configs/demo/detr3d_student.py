"""The student of configs/demo/detr3d_teacher.py: a quarter of its pixels, half its channels; the same queries."""

_base_ = "./detr3d_teacher.py"

model = dict(
    img_backbone=dict(
        base_channels=16,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        stage_with_dcn=(False, False),
        out_indices=(0, 1),
    ),
    img_neck=dict(in_channels=[16, 32]),
    pv_strides=(4, 8),
)

inputs = dict(scale=0.5, pad_hw=(64, 112))
train_cfg = dict(max_epochs=2, val_interval=2)
