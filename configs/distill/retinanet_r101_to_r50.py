"""RetinaNet R101 to R50 with masked generation on the pyramid."""
_base_ = ['../student/retinanet_r50.py', '../_base_/mgd.py']

teacher = '../teacher/retinanet_r101.py'
