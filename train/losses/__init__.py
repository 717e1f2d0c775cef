"""Distillation terms: classes that take tensors and return losses, on torch alone."""

from train.losses.channel_divergence import ChannelWiseDivergence
from train.losses.checks import ShapeMismatch
from train.losses.focal_images import ImageFocalSampling
from train.losses.focal_sampling import FocalSampling
from train.losses.heatmap import gaussian_heatmap, resize_heatmap
from train.losses.heatmap_l2 import HeatmapL2
from train.losses.masked_generation import AreaL2, MaskedGeneration, MaskedGenerator
from train.losses.query_alignment import QueryAlignment
from train.losses.restore import BevRestore

__all__ = [
    "AreaL2",
    "BevRestore",
    "ChannelWiseDivergence",
    "FocalSampling",
    "HeatmapL2",
    "ImageFocalSampling",
    "MaskedGeneration",
    "MaskedGenerator",
    "QueryAlignment",
    "ShapeMismatch",
    "gaussian_heatmap",
    "resize_heatmap",
]
