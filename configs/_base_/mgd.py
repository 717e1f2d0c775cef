"""Masked generation on every level of the pyramid, inside the boxes of ground truth and teacher.

The weight and the share of hidden cells are those of Masked Generative Distillation (Yang et al., ECCV 2022) for
detection: 2e-5 on a sum over cells and channels, 0.65. There whole maps are masked and compared; here it is the
instances, as everywhere in this project.
"""
distiller = dict(
    init_from_teacher='head',
    terms=dict(pv_generation=dict(weight=2e-5, reduction='sum', mask_ratio=0.65)),
    areas=dict(ground_truth=True, queries=True, min_score=0.3, at_most=100, pv_margin_cells=1.0))
