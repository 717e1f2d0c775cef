"""The published training of BEVFormer and FocalDistiller: 24 epochs, one sample a GPU, eight GPUs."""
queue_length = 4

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys={'img_backbone': dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=35, norm_type=2),
    accumulative_counts=1)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.3333333333333333, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, eta_min_ratio=1e-3)]

train_cfg = dict(max_epochs=24, val_interval=1)
train_dataloader = dict(batch_size=1, num_workers=4)
# The rate above is for steps of 8 samples: fewer or more, of all processes together, scale it. enable=False keeps it.
auto_scale_lr = dict(enable=True, base_batch_size=8)

amp = None  # 'fp16' or 'bf16'
checkpoint_interval = 1000  # steps
log_interval = 50  # steps
