"""The demo's student with the terms of the released HeatmapDistiller."""

_base_ = "./student.py"

teacher = "./teacher.py"

distiller = dict(terms=dict(pv_divergence=dict(), bev_heatmap=dict()))
