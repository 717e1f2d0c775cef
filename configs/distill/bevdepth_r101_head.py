"""A distillation head on the BEV maps of BEVDepth R101, which has no queries of its own.

The schedule is that of detectors with queries: a sample a process, no half precision.
"""
_base_ = '../teacher/bevdepth_r101_512x1408.py'

model = dict(
    _delete_=True,
    type='DistillationHead',
    num_queries=900,
    decoder_layers=6)

optim_wrapper = dict(optimizer=dict(weight_decay=0.01), clip_grad=dict(max_norm=35))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.3333333333333333, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, eta_min_ratio=1e-3)]
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)
amp = None
augmentation = None
