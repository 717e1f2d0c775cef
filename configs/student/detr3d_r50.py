"""DETR3D with ResNet-50, the student of the FD3D paper: 900×1600 images.

The paper gives depth and image size alone and leaves open whether there are deformable convolutions, which
weights training starts from and how long it lasts. Its GFLOPs speak against deformable convolutions: 876.94, where
backbone and neck of a plain ResNet-50 in PyTorch style take 866.7 G multiply-adds, and with 3×3 deformable
convolutions, which the usual counter leaves out, 698.2. Counted so, the teacher's take 1004.1 of 1016.83.
Chosen here for the rest: torchvision's ImageNet weights with their RGB normalisation, the teacher's schedule.
"""
_base_ = '../_base_/detr3d.py'

model = dict(
    img_backbone=dict(
        depth=50,
        norm_cfg=dict(type='BN2d', requires_grad=True),
        style='pytorch',
        dcn=None,
        stage_with_dcn=(False, False, False, False)))

inputs = dict(
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    to_rgb=True)
