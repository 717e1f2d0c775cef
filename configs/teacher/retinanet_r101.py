"""RetinaNet R101 on COCO, 800×1333; mmdet's model zoo has the weights."""
_base_ = '../_base_/retinanet.py'

model = dict(
    detector=dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'))))
