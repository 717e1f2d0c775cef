"""The student of configs/demo/retinanet_teacher.py: half its backbone's channels, the same head."""

_base_ = "./retinanet_teacher.py"

model = dict(detector=dict(backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128])))

train_cfg = dict(max_epochs=2, val_interval=2)
