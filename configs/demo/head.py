"""A distillation head for the store of configs/demo/teacher.py: queries and decoder trained anew, on its BEV maps."""

_base_ = "./teacher.py"

model = dict(
    _delete_=True,
    type="DistillationHead",
    num_queries=200,
    decoder_layers=3,
    num_heads=4,
    ffn_dims=128,
    dropout=0.0,
    max_detections=100,
)

optim_wrapper = dict(paramwise_cfg=None)
train_cfg = dict(max_epochs=4)
