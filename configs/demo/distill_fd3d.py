"""The demo's student with FD3D and the query term."""

_base_ = "./student.py"

teacher = "./teacher.py"

distiller = dict(terms=dict(pv_generation=dict(), bev_generation=dict(), focal=dict(), query=dict()))
