"""BEVDepth with ResNet-101, 512×1408 images, two key frames: a larger teacher of the family.

No such weights are released. Train this config with train/train_detector.py, its backbone from torchvision's ImageNet
weights of ResNet-101 by --init-from; then dump with the weights that the training exports.
"""
_base_ = '../student/bevdepth_r50_2key.py'

model = dict(
    image_hw=(512, 1408),
    img_backbone=dict(depth=101))
inputs = dict(scale=0.88, pad_hw=(512, 1408))
optim_wrapper = dict(optimizer=dict(weight_decay=1e-3))
