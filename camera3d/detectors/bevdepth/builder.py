"""Puts BEVDepth together: the one place that knows which part gets which number."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet3d.registry import MODELS
from torch import nn

from camera3d.detectors.bevdepth.depth_net import DepthAggregation, DepthNet
from camera3d.detectors.bevdepth.head import BEVDepthHead
from camera3d.detectors.bevdepth.lift import LiftSplat

# The released weights were trained with this epsilon; 1e-5 would show in the fourth digit.
NECK_NORM = {"type": "BN", "eps": 1e-3, "momentum": 0.01}


def build_lift(
    *,
    img_backbone: dict,
    image_hw: tuple[int, int],
    point_cloud_range: Sequence[float],
    voxel_size_m: Sequence[float],
    depth_bins_m: tuple[float, float, float],
    context_channels: int,
    neck_channels: int,
    depth_channels: int,
    depth_aggregation: bool,
) -> LiftSplat:
    """The image half with random weights.

    Args:
        img_backbone: config of a ResNet with all four stages out.
        neck_channels: of the image neck, for each stage.
        depth_channels: of the depth net's layers.
    """
    backbone = MODELS.build(img_backbone)
    widths = [_stage_width(backbone, stage) for stage in range(4)]
    neck = _second_fpn(widths, neck_channels, (0.25, 0.5, 1, 2))
    first, end, step = depth_bins_m
    return LiftSplat(
        img_backbone=backbone,
        img_neck=neck,
        depth_net=DepthNet(
            in_channels=4 * neck_channels,
            channels=depth_channels,
            context_channels=context_channels,
            depth_bins=round((end - first) / step),
        ),
        depth_aggregation=DepthAggregation(context_channels) if depth_aggregation else None,
        image_hw=image_hw,
        stride=16,
        depth_bins_m=depth_bins_m,
        point_cloud_range=point_cloud_range,
        voxel_size_m=voxel_size_m,
    )


def build_bev_head(
    *,
    in_channels: int,
    trunk_channels: int,
    neck_channels: int,
    tasks: Sequence[int],
    heatmap_bias: float | None,
) -> BEVDepthHead:
    """The BEV half with random weights.

    Args:
        in_channels: of the pooled map, all key frames.
        trunk_channels: of the first stage of the BEV encoder; neck_channels: of the neck, for each map.
        tasks: classes of each task.
    """
    trunk = MODELS.build(
        {
            "type": "mmdet.ResNet",
            "depth": 18,
            "in_channels": in_channels,
            "base_channels": trunk_channels,
            "num_stages": 3,
            "strides": (1, 2, 2),
            "dilations": (1, 1, 1),
            "out_indices": (0, 1, 2),
            "norm_eval": False,
        }
    )
    widths = [in_channels, *(trunk_channels << stage for stage in range(3))]
    return BEVDepthHead(
        trunk=trunk,
        neck=_second_fpn(widths, neck_channels, (1, 2, 4, 8)),
        bev_channels=4 * neck_channels,
        tasks=tasks,
        heatmap_bias=heatmap_bias,
    )


def _second_fpn(in_channels: Sequence[int], channels: int, upsample: Sequence[float]) -> nn.Module:
    return MODELS.build(
        {
            "type": "mmdet3d.SECONDFPN",
            "in_channels": list(in_channels),
            "out_channels": [channels] * len(in_channels),
            "upsample_strides": list(upsample),
            "norm_cfg": dict(NECK_NORM),
        }
    )


def _stage_width(backbone: nn.Module, stage: int) -> int:
    block = getattr(backbone, backbone.res_layers[stage])[-1]
    last = block.conv3 if hasattr(block, "conv3") else block.conv2
    return last.out_channels
