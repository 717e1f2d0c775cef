"""The demo's student with start and terms of the released HeatmapDistiller."""

_base_ = "./student.py"

teacher = "./teacher.py"

distiller = dict(init_from_teacher="released", terms=dict(pv_divergence=dict(), bev_heatmap=dict()))
