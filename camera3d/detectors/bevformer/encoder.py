"""The BEV encoder: grid-shaped queries gather the previous BEV and the six images.

Shapes: B batch, N cameras, Q = H·W BEV queries (row-major, y first), C channels, D heights of a pillar.
Source: Li et al., BEVFormer, ECCV 2022, section 3.2-3.4.
"""

from __future__ import annotations

import torch
from mmcv.cnn.bricks.transformer import FFN
from torch import Tensor, nn

from camera3d.detectors.bevformer.attention import (
    PillarProjection,
    SpatialCrossAttention,
    TemporalSelfAttention,
    rows_seen,
)
from camera3d.detectors.query_based.deformable import MapShapes
from camera3d.ops.constants import constant


def bev_reference_points(bev_hw: tuple[int, int], device: torch.device) -> Tensor:
    """Centres of the BEV cells, (Q, 2), x then y in [0, 1]."""
    height, width = bev_hw
    y, x = torch.meshgrid(
        torch.linspace(0.5, height - 0.5, height, device=device) / height,
        torch.linspace(0.5, width - 0.5, width, device=device) / width,
        indexing="ij",
    )
    return torch.stack((x, y), dim=-1).view(-1, 2)


def project_pillars(
    reference_Q2: Tensor,
    lidar2img: Tensor,
    *,
    point_cloud_range: tuple[float, ...],
    num_heights: int,
    image_hw: tuple[int, int],
) -> PillarProjection:
    """Project D points over every BEV cell into every camera.

    Args:
        reference_Q2: cell centres in [0, 1].
        lidar2img: (B, N, 4, 4), LiDAR metres to pixels of the padded image.
        point_cloud_range: x, y, z minimum, then maximum, in metres.
        image_hw: the padded image's size: the official code calls a point visible when it falls inside it.
    """
    lower = constant(point_cloud_range[:3], reference_Q2)
    extent = constant(point_cloud_range[3:], reference_Q2) - lower
    depth_m = point_cloud_range[5] - point_cloud_range[2]
    heights = torch.linspace(0.5, depth_m - 0.5, num_heights, device=reference_Q2.device) / depth_m
    Q, D = len(reference_Q2), num_heights
    points = torch.cat(
        (reference_Q2[:, None].expand(Q, D, 2), heights[None, :, None].expand(Q, D, 1)), dim=-1
    )
    points = points * extent + lower
    points = torch.cat((points, points.new_ones(Q, D, 1)), dim=-1).view(Q * D, 4)
    # Always float32: half precision would move a far point by several pixels.
    with torch.autocast(points.device.type, enabled=False):
        image_points = (lidar2img.float() @ points.T).transpose(-1, -2)  # (B, N, Q*D, 4)
    eps = 1e-5
    in_front = image_points[..., 2] > eps
    size_xy = constant([image_hw[1], image_hw[0]], points)
    xy = image_points[..., :2] / image_points[..., 2:3].clamp(min=eps) / size_xy
    inside = in_front & (xy > 0).all(-1) & (xy < 1).all(-1)
    B, N = lidar2img.shape[:2]
    visible = inside.view(B, N, Q, D).any(-1)
    return PillarProjection(xy.view(B, N, Q, D, 2), visible, rows_seen(visible))


class BEVFormerLayer(nn.Module):
    """Temporal self-attention, spatial cross-attention and a feed-forward net, LayerNorm after each."""

    def __init__(
        self,
        *,
        temporal_attention: TemporalSelfAttention,
        spatial_attention: SpatialCrossAttention,
        ffn: FFN,
        embed_dims: int,
    ) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([temporal_attention, spatial_attention])
        self.ffns = nn.ModuleList([ffn])
        self.norms = nn.ModuleList(nn.LayerNorm(embed_dims) for _ in range(3))

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        value_BNSC: Tensor,
        first_query_BQC: Tensor,
        prev_bev_BQC: Tensor | None,
        has_prev_B: Tensor | None,
        shifted_reference_BQ2: Tensor,
        pillars: PillarProjection,
        map_shapes: MapShapes,
        bev_hw: tuple[int, int],
    ) -> Tensor:
        """The updated queries, (B, Q, C).

        With a previous BEV every layer looks at it and at the *initial* queries; without one it looks twice
        at its own input, as the official first frame does. `has_prev_B` chooses for each sample.
        """
        history, current = query_BQC, query_BQC
        if prev_bev_BQC is not None:
            history, current = prev_bev_BQC, first_query_BQC
            if has_prev_B is not None:
                has_prev = has_prev_B[:, None, None]
                history = torch.where(has_prev, history, query_BQC)
                current = torch.where(has_prev, current, query_BQC)
        temporal, spatial = self.attentions
        query = temporal(query_BQC, query_pos_BQC, history, current, shifted_reference_BQ2, bev_hw)
        query = self.norms[0](query)
        query = self.norms[1](spatial(query, value_BNSC, pillars, map_shapes))
        return self.norms[2](self.ffns[0](query))


class BEVFormerEncoder(nn.Module):
    """A stack of `BEVFormerLayer`."""

    def __init__(
        self, *, layers: list[BEVFormerLayer], point_cloud_range: tuple[float, ...], num_heights: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.point_cloud_range = point_cloud_range
        self.num_heights = num_heights

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        value_BNSC: Tensor,
        *,
        lidar2img: Tensor,
        image_hw: tuple[int, int],
        map_shapes: MapShapes,
        bev_hw: tuple[int, int],
        shift_B2: Tensor,
        prev_bev_BQC: Tensor | None,
        has_prev_B: Tensor | None,
    ) -> Tensor:
        """The BEV map as a sequence, (B, Q, C)."""
        reference_Q2 = bev_reference_points(bev_hw, query_BQC.device)
        pillars = project_pillars(
            reference_Q2,
            lidar2img,
            point_cloud_range=self.point_cloud_range,
            num_heights=self.num_heights,
            image_hw=image_hw,
        )
        # The official code shifts in place, so the reference of the current map moves with that of the
        # previous one. The checkpoints were trained that way and the golden frames hold us to it.
        shifted_BQ2 = reference_Q2 + shift_B2[:, None]
        first_query_BQC = query_BQC
        for layer in self.layers:
            query_BQC = layer(
                query_BQC,
                query_pos_BQC,
                value_BNSC,
                first_query_BQC,
                prev_bev_BQC,
                has_prev_B,
                shifted_BQ2,
                pillars,
                map_shapes,
                bev_hw,
            )
        return query_BQC
