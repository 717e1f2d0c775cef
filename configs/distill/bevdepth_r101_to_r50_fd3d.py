"""FD3D from BEVDepth R101 to R50, with the queries of a distillation head.

First train the head on the store: train/train_distillation_head.py configs/distill/bevdepth_r101_head.py --layer head.
The student has no queries that could be compared one by one, so there is no query term. The weights are those of the
BEVFormer pairs: none were searched for here.
"""
_base_ = '../student/bevdepth_r50_2key.py'

teacher = '../teacher/bevdepth_r101_512x1408.py'
cache_layer = 'head'

distiller = dict(
    init_from_teacher='head',
    terms=dict(
        bev_generation=dict(weight=0.05),
        focal=dict(weight=0.05)))
