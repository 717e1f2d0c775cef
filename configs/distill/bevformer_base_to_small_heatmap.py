"""The released HeatmapDistiller: where channels look on the image maps, and L2 under the heatmap on BEV."""
_base_ = '../student/bevformer_small.py'

teacher = '../teacher/bevformer_base.py'

distiller = dict(
    init_from_teacher='released',
    terms=dict(
        pv_divergence=dict(tau=2.0, weight=0.25),
        bev_heatmap=dict(weight=0.1)))
