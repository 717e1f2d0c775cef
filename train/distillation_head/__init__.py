"""A query decoder trained on the BEV maps of a store, and the layer that it leaves there."""

from train.distillation_head.layer import append_layer
from train.distillation_head.setting import HeadSetting, head_setting

__all__ = ["HeadSetting", "append_layer", "head_setting"]
