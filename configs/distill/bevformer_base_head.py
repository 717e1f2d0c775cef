"""A distillation head on the BEV maps of BEVFormer-Base, of the size of its own: a trained one in place of the frozen."""
_base_ = '../teacher/bevformer_base.py'

model = dict(
    _delete_=True,
    type='DistillationHead',
    num_queries=900,
    decoder_layers=6)

optim_wrapper = dict(paramwise_cfg=None)
