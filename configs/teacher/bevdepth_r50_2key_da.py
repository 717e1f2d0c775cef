"""BEVDepth with two key frames and depth aggregation: the official bev_depth_lss_r50_256x704_128x128_20e_cbgs_2key_da.

Weights: the Lightning checkpoints that the official repository releases, with or without EMA (NDS 48.0 on val, mAP 34.8
and 35.9).
"""
_base_ = './bevdepth_r50_2key.py'

model = dict(depth_aggregation=True)
class_balanced = True
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[16, 19], gamma=0.1)]
train_cfg = dict(max_epochs=20, val_interval=4)
