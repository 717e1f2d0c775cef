"""BEVDepth (Li et al., AAAI 2023) on mmdet and mmdet3d parts."""
