"""FD3D: masked generation in the instance areas of both views, the focal term and the query term.

docs/decisions/0004 lists what the paper leaves open and why it is as it is here. With these
weights every part has between a tenth and a half of the detection loss's gradient at the student's maps
(benchmarks/results/term_gradients.md).
"""
distiller = dict(
    init_from_teacher='head',
    terms=dict(
        pv_generation=dict(weight=0.02, mask_ratio=0.5),
        bev_generation=dict(weight=0.05, bev_map='generated'),
        focal=dict(weight=0.05, bev_map='raw'),
        query=dict(logit_weight=2.0, box_weight=0.25)),
    areas=dict(
        ground_truth=True,
        queries=True,
        min_score=0.1,
        at_most=300,
        bev_margin_m=0.5,
        pv_margin_cells=1.0),
    bev_mask_ratio=0.5)
