"""Faster R-CNN as mmdet configures it, R50 with FPN. A backbone's first weights come from mmdet's own `init_cfg`."""
_base_ = ['mmdet::_base_/models/faster-rcnn_r50_fpn.py', './coco.py', './schedule_2d.py']

model = dict(
    _delete_=True,
    type='MMDetDetector',
    class_names={{_base_.class_names}},
    detector={{_base_.model}},
    pv_strides=(4, 8, 16, 32, 64))
