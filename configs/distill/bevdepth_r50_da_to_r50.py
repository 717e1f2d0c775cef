"""From the released BEVDepth with depth aggregation (R50, two key frames, CBGS) to R50 without it, of the same size.

The student takes its cameras' poses as the released weights do, so that both see the same places in the same cells.
Image terms compare the neck's maps, BEV terms the maps behind the BEV encoder. The weights are those of the BEVFormer
pairs: none were searched for here.
"""
_base_ = '../student/bevdepth_r50_2key.py'

teacher = '../teacher/bevdepth_r50_2key_da.py'
model = dict(ego_frame='camera')

distiller = dict(
    init_from_teacher='head',
    terms=dict(
        pv_generation=dict(weight=0.02, mask_ratio=0.5),
        bev_heatmap=dict(weight=0.1),
        bev_generation=dict(weight=0.05)))
