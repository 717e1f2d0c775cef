"""DETR3D with ResNet-50 trained with class-balanced sampling."""
_base_ = './detr3d_r50.py'

class_balanced = True
