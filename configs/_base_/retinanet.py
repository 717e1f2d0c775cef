"""RetinaNet as mmdet configures it, R50 with FPN. A backbone's first weights come from mmdet's own `init_cfg`."""
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', './coco.py', './schedule_2d.py']

model = dict(
    _delete_=True,
    type='MMDetDetector',
    class_names={{_base_.class_names}},
    detector={{_base_.model}},
    pv_strides=(8, 16, 32, 64, 128))

optim_wrapper = dict(optimizer=dict(lr=0.01))
