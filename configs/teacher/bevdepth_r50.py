"""BEVDepth with ResNet-50, 256×704 images, one key frame, as a teacher.

The official repository has its configuration (bev_depth_lss_r50_256x704_128x128_24e) and publishes neither weights nor
numbers of it: train configs/student/bevdepth_r50.py and give its exported weights, or a Lightning checkpoint that the
official code trained.
"""
_base_ = '../student/bevdepth_r50.py'
