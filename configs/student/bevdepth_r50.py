"""BEVDepth with ResNet-50, 256×704 images, one key frame. No weights and no number of it are published: train it."""
_base_ = '../_base_/bevdepth.py'
