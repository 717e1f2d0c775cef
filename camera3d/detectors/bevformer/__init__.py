"""BEVFormer (Li et al., ECCV 2022) on mmdet, mmcv and mmdet3d parts."""
