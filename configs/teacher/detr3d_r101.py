"""DETR3D with ResNet-101-DCN, the teacher: official checkpoint of detr3d_res101_gridmask (NDS 42.2, mAP 34.7)."""
_base_ = '../_base_/detr3d.py'
