"""The smaller student of the FD3D paper: BEVFormer-Tiny with a BEV map of 100×100 cells."""
_base_ = './bevformer_tiny.py'

model = dict(pts_bbox_head=dict(bev_hw=(100, 100)))
