"""FD3D from DETR3D R101 to R50. The authors report 35.78 NDS without and 38.95 with it, 42.50 for the teacher.

DETR3D has no BEV map: what is generated are the image maps, and the focal term reads the image maps where the teacher's
queries project to.
"""
_base_ = ['../student/detr3d_r50.py', '../_base_/fd3d.py']

teacher = '../teacher/detr3d_r101.py'

distiller = dict(
    terms=dict(
        _delete_=True,
        pv_generation=dict(weight=0.02, mask_ratio=0.5),
        focal=dict(weight=0.05),
        query=dict(logit_weight=2.0, box_weight=0.25)))
