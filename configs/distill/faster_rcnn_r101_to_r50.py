"""Faster R-CNN R101 to R50 with masked generation on the pyramid."""
_base_ = ['../student/faster_rcnn_r50.py', '../_base_/mgd.py']

teacher = '../teacher/faster_rcnn_r101.py'
