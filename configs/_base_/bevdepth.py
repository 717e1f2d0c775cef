"""What the BEVDepth configurations have in common: classes, BEV range, ResNet-50, 256×704 images, training.

The official recipe: augmentation of pictures and ground, AdamW, 24 epochs, the rate a tenth after epochs 19 and 23.
"""

class_names = (
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier',
    'motorcycle', 'bicycle', 'pedestrian', 'traffic_cone')

model = dict(
    type='BEVDepth',
    class_names=class_names,
    # Classes that share a head: car; truck, construction_vehicle; bus, trailer; barrier; motorcycle, bicycle; the rest.
    tasks=(1, 2, 2, 1, 2, 2),
    image_hw=(256, 704),
    # Metres of the ego frame.
    point_cloud_range=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0),
    voxel_size_m=(0.8, 0.8, 8.0),
    depth_bins_m=(2.0, 58.0, 0.5),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=0,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch'),
    key_frames=1,
    depth_aggregation=False,
    ego_frame='mean',
    criterion=dict(velocity_weight=0.5, depth_weight=3.0))

# The 8-bit picture is made smaller by Pillow and loses its upper rows. The weights are trained on blue, green, red
# with the statistics of red, green, blue.
inputs = dict(
    scale=0.44,
    pad_hw=(256, 704),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    to_rgb=False,
    resize='pillow_keep_bottom')

queue_length = 1
distort = False
# Pictures: scales of 0.386 to 0.55 where evaluation takes 0.44. The ground: turned, scaled, mirrored.
augmentation = dict(
    image=dict(zoom=(0.386 / 0.44, 0.55 / 0.44), mirror=True, rotate_deg=5.4),
    bev=dict(rotate_deg=22.5, scale=(0.95, 1.05), mirror_x=True, mirror_y=True))
# Boxes of this range of the LiDAR frame are ground truth: all that the ego frame's map may hold, turned and scaled.
# A velocity that the annotations do not tell is left out of the loss.
unknown_velocity = 'nan'
# LIDAR_TOP's sweeps train the depth; without them also set model.criterion = dict(depth_weight=0.0).
lidar_depth = True
ground_truth_range = (-80.0, -80.0, -10.0, 80.0, 80.0, 10.0)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-7),
    clip_grad=dict(max_norm=5, norm_type=2),
    accumulative_counts=1)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[19, 23], gamma=0.1)]
train_cfg = dict(max_epochs=24, val_interval=4)
train_dataloader = dict(batch_size=8, num_workers=4)
# The rate above is for steps of 64 samples: fewer or more, of all processes together, scale it, as in the official code.
auto_scale_lr = dict(enable=True, base_batch_size=64)

amp = 'fp16'
checkpoint_interval = 1000  # steps
log_interval = 50  # steps
