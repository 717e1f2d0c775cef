"""mmdet's 2x schedule, as papers on feature distillation use it: SGD, 24 epochs, 16 pictures a step."""
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
    accumulative_counts=1)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, milestones=[16, 22], gamma=0.1)]

train_cfg = dict(max_epochs=24, val_interval=1)
train_dataloader = dict(batch_size=2, num_workers=4)
# The rate above is for steps of 16 pictures: fewer or more, of all processes together, scale it. enable=False keeps it.
auto_scale_lr = dict(enable=True, base_batch_size=16)

amp = None  # 'fp16' or 'bf16'
checkpoint_interval = 1000  # steps
log_interval = 50  # steps
