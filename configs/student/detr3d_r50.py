"""DETR3D with ResNet-50, the student of the FD3D paper: 900×1600 images.

The paper gives depth and image size alone. It leaves open whether this ResNet-50 has deformable convolutions,
which weights it starts from and how long it trains. Here: none, torchvision's ImageNet weights with their RGB
normalisation, and the teacher's own schedule.
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
