"""FD3D from Base to a Tiny of 450×800 images and 100×100 cells. The authors report 39.02 and 43.09 NDS."""
_base_ = ['../student/bevformer_tiny_bev100.py', '../_base_/fd3d.py']

teacher = '../teacher/bevformer_base.py'

# Tiny's one level has the cells of the teacher's coarsest: 64 camera pixels.
distiller = dict(pv_levels=[(0, 3)])
