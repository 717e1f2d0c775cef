"""BEVFormer-Base, the teacher: official checkpoint bevformer_r101_dcn_24ep.pth."""
_base_ = ['../_base_/bevformer.py', '../_base_/schedule_24ep.py']
