"""BEVDepth with ResNet-50, two key frames and depth aggregation, class-balanced and averaged: …_20e_cbgs_2key_da_ema.

20 epochs, each with every class in equally many frames. Published of the official weights: NDS 48.0, mAP 35.9.
"""
_base_ = './bevdepth_r50_2key_ema.py'

model = dict(depth_aggregation=True)
class_balanced = True
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[16, 19], gamma=0.1)]
train_cfg = dict(max_epochs=20, val_interval=4)
