"""From images to a bird's-eye-view map: image features, depth net, voxel pooling.

Shapes: B batch, N cameras, C channels, D depth bins, h w cells of the image map, Y X cells of the BEV map.
Source: Li et al., BEVDepth, AAAI 2023, figure 4. Parameter and buffer names are those of the official
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from camera3d.detectors.bevdepth.depth_net import DepthAggregation, DepthNet
from camera3d.detectors.bevdepth.rig import Rig, camera_vector, frustum_geometry, frustum_points
from camera3d.detectors.bevdepth.voxel_pooling import voxel_index, voxel_pooling


class Lifted(NamedTuple):
    """bev: (B, C, Y, X), rows along y and columns along x, both ascending; depth: (B, N, D, h, w)."""

    bev: Tensor
    depth: Tensor


class LiftSplat(nn.Module):
    """Image maps to one BEV map a frame.

    Args:
        img_backbone, img_neck: modules; the neck gives one map.
        image_hw: of the network's input; stride: of the image map.
        depth_bins_m: first bin, end and step.
        point_cloud_range: x, y, z minimum, then maximum, in metres.
        voxel_size_m: of a BEV cell along x, y, z; one cell high.
        depth_aggregation: None without.
    """

    def __init__(
        self,
        *,
        img_backbone: nn.Module,
        img_neck: nn.Module,
        depth_net: DepthNet,
        depth_aggregation: DepthAggregation | None,
        image_hw: tuple[int, int],
        stride: int,
        depth_bins_m: tuple[float, float, float],
        point_cloud_range: Sequence[float],
        voxel_size_m: Sequence[float],
    ) -> None:
        super().__init__()
        low, high, size = point_cloud_range[:3], point_cloud_range[3:], tuple(voxel_size_m)
        axes = list(zip(low, high, size, strict=True))
        self.grid_xyz = tuple(round((last - first) / cell) for first, last, cell in axes)
        self.register_buffer("voxel_size", torch.tensor(size))
        self.register_buffer("voxel_coord", torch.tensor([first + cell / 2 for first, _, cell in axes]))
        self.register_buffer("voxel_num", torch.tensor(self.grid_xyz))
        self.register_buffer("frustum", frustum_points(image_hw, stride, depth_bins_m))
        self.img_backbone, self.img_neck, self.depth_net = img_backbone, img_neck, depth_net
        if depth_aggregation is not None:
            self.depth_aggregation_net = depth_aggregation
        self.aggregates = depth_aggregation is not None

    def init_weights(self) -> None:
        """The parts' own start; mmengine does not look inside a plain module."""
        self.img_backbone.init_weights()
        self.img_neck.init_weights()

    def image_features(self, images_BN3HW: Tensor) -> Tensor:
        """(B, N, C, h, w)."""
        (feats,) = self.img_neck(self.img_backbone(images_BN3HW.flatten(0, 1)))
        return feats.unflatten(0, images_BN3HW.shape[:2])

    def forward(self, feats_BNChw: Tensor, rig: Rig, key_rig: Rig) -> Lifted:
        """The BEV map of a frame.

        Args:
            feats_BNChw: see `image_features`.
            rig: of that frame, in the ego frame of the key frame.
            key_rig: of the key frame, whose camera numbers open the gates for earlier frames too: the
                released weights were trained so.
        """
        batch, cameras = feats_BNChw.shape[:2]
        vector = camera_vector(key_rig)
        depth, context = self.depth_net(feats_BNChw.flatten(0, 1), vector.flatten(0, 1))
        depth, context = (values.unflatten(0, (batch, cameras)) for values in (depth, context))
        index, channels = self.cells(rig), context.shape[2]
        depth_last, context_last = depth[..., None], context.permute(0, 1, 3, 4, 2)[:, :, None].float()
        if self.aggregates and self.training:
            # BatchNorm must see all cameras at once.
            lifted = (depth_last * context_last).flatten(0, 1)
            whole = self.depth_aggregation_net(lifted).unflatten(0, (batch, cameras))
            return Lifted(voxel_pooling(index, lambda n: whole[:, n], self.grid_xyz, channels), depth)

        def lifted_of(camera: int) -> Tensor:
            feats = depth_last[:, camera] * context_last[:, camera]
            return self.depth_aggregation_net(feats) if self.aggregates else feats

        return Lifted(voxel_pooling(index, lifted_of, self.grid_xyz, channels), depth)

    @torch.no_grad()
    def cells(self, rig: Rig) -> Tensor:
        """(B, N, D, h, w, 3): the BEV cell of every frustum point; no gradient reaches the geometry."""
        points = frustum_geometry(self.frustum, rig)
        return voxel_index(points, self.voxel_coord - self.voxel_size / 2, self.voxel_size)
