"""A RetinaNet for the pictures of the demo's scenes: mmdet's, with a small backbone, narrow maps and small anchors."""

_base_ = "../_base_/retinanet.py"

class_names = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
dataset = dict(images_per_group=60)

model = dict(
    class_names=class_names,
    detector=dict(
        backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
        neck=dict(
            in_channels=[32, 64, 128, 256],
            out_channels=64,
            start_level=0,
            num_outs=4,
            add_extra_convs=False,
        ),
        bbox_head=dict(
            num_classes=len(class_names),
            in_channels=64,
            feat_channels=64,
            stacked_convs=2,
            anchor_generator=dict(octave_base_scale=2, strides=[4, 8, 16, 32]),
        ),
    ),
    pv_strides=(4, 8, 16, 32),
    pv_channels=64,
)

inputs = dict(fit=(126, 224), pad_hw=(128, 224))

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=8e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, eta_min_ratio=1e-2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=4, val_interval=4)
train_dataloader = dict(batch_size=8, num_workers=1)
auto_scale_lr = dict(base_batch_size=8)
checkpoint_interval = 100
