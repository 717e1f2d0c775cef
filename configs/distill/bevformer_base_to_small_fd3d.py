"""FD3D from Base to Small. The authors report 46.26 NDS without and 48.73 with it."""
_base_ = ['../student/bevformer_small.py', '../_base_/fd3d.py']

teacher = '../teacher/bevformer_base.py'
