"""DETR3D (Wang et al., CoRL 2021) on mmdet, mmcv and mmdet3d parts."""
