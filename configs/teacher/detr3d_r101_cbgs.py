"""DETR3D with ResNet-101-DCN trained with class-balanced sampling: official detr3d_res101_gridmask_cbgs (NDS 43.4)."""
_base_ = './detr3d_r101.py'

class_balanced = True
