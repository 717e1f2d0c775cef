"""FD3D: masked generation in the instance areas of both views, the focal term, and the query term.

docs/decisions/0004 lists what the paper leaves open and why it is as it is here.
"""
_base_ = '../student/bevformer_small.py'

teacher = '../teacher/bevformer_base.py'

distiller = dict(
    terms=dict(
        pv_generation=dict(weight=1.0, mask_ratio=0.5),
        bev_generation=dict(weight=1.0),
        focal=dict(weight=1.0),
        query=dict(logit_weight=2.0, box_weight=0.25)),
    areas=dict(
        ground_truth=True,
        queries=True,
        min_score=0.1,
        at_most=300,
        bev_margin_cells=1.0,
        pv_margin_cells=1.0),
    bev_mask_ratio=0.5,
    init_head_from_teacher=True)
