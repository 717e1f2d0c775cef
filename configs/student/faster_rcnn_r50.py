"""Faster R-CNN R50 on COCO, 800×1333, 2x."""
_base_ = '../_base_/faster_rcnn.py'
