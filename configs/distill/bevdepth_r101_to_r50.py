"""From BEVDepth R101 at 512×1408 to R50 at 256×704, without queries: what FD3D says of BEV maps, and the heatmap term.

BEVDepth has no object queries, so the focal and the query term have nothing to read; its image maps cover other parts
of the pictures than the student's, so no image term compares them. The weights are those of the BEVFormer pairs: none
were searched for here.
"""
_base_ = '../student/bevdepth_r50_2key.py'

teacher = '../teacher/bevdepth_r101_512x1408.py'

distiller = dict(
    init_from_teacher='head',
    terms=dict(
        bev_heatmap=dict(weight=0.1),
        bev_generation=dict(weight=0.05)))
