"""A DETR3D for the demo's scenes: the demo's teacher's backbone, finer maps, each frame by itself."""

_base_ = "../_base_/detr3d.py"

point_cloud_range = (-38.4, -38.4, -3.0, 38.4, 38.4, 1.0)

model = dict(
    point_cloud_range=point_cloud_range,
    grid_mask_prob=0.0,
    max_detections=100,
    img_backbone=dict(
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        style="pytorch",
        out_indices=(1, 2),
        frozen_stages=-1,
        norm_cfg=dict(type="BN", requires_grad=True),
        norm_eval=False,
        dcn=None,
        stage_with_dcn=(False, False, False),
    ),
    img_neck=dict(
        in_channels=[64, 128],
        out_channels=64,
        num_outs=2,
        add_extra_convs=False,
        relu_before_extra_convs=False,
    ),
    pv_strides=(8, 16),
    pts_bbox_head=dict(
        num_heads=4, decoder_layers=3, num_queries=200, embed_dims=64, ffn_dims=128, dropout=0.0
    ),
)

inputs = dict(scale=1.0, pad_hw=(128, 224))

queue_length = 1
optim_wrapper = dict(
    optimizer=dict(lr=8e-4), paramwise_cfg=dict(custom_keys={"img_backbone": dict(lr_mult=1.0)})
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", by_epoch=True, begin=0, eta_min_ratio=1e-2, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=4, val_interval=4)
train_dataloader = dict(batch_size=2, num_workers=1)
auto_scale_lr = dict(base_batch_size=2)
checkpoint_interval = 100
