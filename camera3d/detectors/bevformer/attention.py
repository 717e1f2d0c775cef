"""The two deformable attentions that make BEVFormer's BEV map.

Shapes: B batch, N cameras, Q queries, C channels, M heads, L levels, P sampling points, D heights of a
pillar, S positions of a flattened map.
Source: Zhu et al., Deformable DETR, ICLR 2021, eq. 2-3; Li et al., BEVFormer, ECCV 2022, eq. 2-5. Parameter
names are those of the official checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from camera3d.detectors.query_based.deformable import (
    MapShapes,
    init_projection,
    init_sampling,
    offset_normalizer,
)
from camera3d.ops import multi_scale_deformable_attention


class TemporalSelfAttention(nn.Module):
    """BEV queries attend to the previous BEV and to the current queries; the two answers are averaged."""

    QUEUE = 2  # previous and current map

    def __init__(self, *, embed_dims: int, num_heads: int, num_points: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.num_points = num_heads, num_points
        per_query = num_heads * self.QUEUE * num_points
        self.sampling_offsets = nn.Linear(self.QUEUE * embed_dims, 2 * per_query)
        self.attention_weights = nn.Linear(self.QUEUE * embed_dims, per_query)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        init_sampling(
            self.sampling_offsets, self.attention_weights, self.num_heads, self.QUEUE, self.num_points
        )
        init_projection(self.value_proj, self.output_proj)

    def forward(
        self,
        query_BQC: Tensor,
        query_pos_BQC: Tensor,
        history_BQC: Tensor,
        current_BQC: Tensor,
        reference_BQ2: Tensor,
        bev_hw: tuple[int, int],
    ) -> Tensor:
        """(B, Q, C) with the residual added.

        Args:
            history_BQC: the aligned previous BEV; the query itself where there is none.
            current_BQC: the map of the current frame to look at.
            reference_BQ2: where each query sits on both maps, x then y in [0, 1].
        """
        B, Q, C = query_BQC.shape
        M, P, F = self.num_heads, self.num_points, self.QUEUE
        located = torch.cat((history_BQC, query_BQC + query_pos_BQC), dim=-1)
        value = self.value_proj(torch.stack((history_BQC, current_BQC), dim=1).flatten(0, 1))
        value = value.view(B * F, Q, M, C // M)
        offsets = self.sampling_offsets(located).view(B, Q, M, F, 1, P, 2)
        weights = self.attention_weights(located).view(B, Q, M, F, P).softmax(-1)

        offsets = offsets / offset_normalizer([bev_hw], offsets)[:, None]
        locations = reference_BQ2[:, :, None, None, None, None] + offsets
        # Each of the two maps is a batch entry of its own: (B, Q, M, F, ...) -> (B*F, Q, M, ...).
        locations = locations.permute(0, 3, 1, 2, 4, 5, 6).flatten(0, 1)
        weights = weights.permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3)
        read = multi_scale_deformable_attention(value, [bev_hw], locations, weights)
        read = read.view(B, F, Q, C).mean(1)
        return query_BQC + self.dropout(self.output_proj(read))


class PillarSampling(nn.Module):
    """Deformable attention around the projected heights of each query's pillar, on all levels of a camera."""

    def __init__(self, *, embed_dims: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dims, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        init_sampling(
            self.sampling_offsets, self.attention_weights, self.num_heads, self.num_levels, self.num_points
        )
        init_projection(self.value_proj)

    def forward(
        self, query_BQC: Tensor, value_BSC: Tensor, reference_BQD2: Tensor, map_shapes: MapShapes
    ) -> Tensor:
        """(B, Q, C). The points are dealt to the heights in turn: point p belongs to height p mod D."""
        B, Q, C = query_BQC.shape
        M, L, P, D = self.num_heads, self.num_levels, self.num_points, reference_BQD2.shape[2]
        value = self.value_proj(value_BSC).view(B, -1, M, C // M)
        weights = self.attention_weights(query_BQC).view(B, Q, M, L * P).softmax(-1).view(B, Q, M, L, P)
        offsets = self.sampling_offsets(query_BQC).view(B, Q, M, L, P // D, D, 2)
        offsets = offsets / offset_normalizer(map_shapes, offsets)[:, None, None]
        locations = (reference_BQD2[:, :, None, None, None] + offsets).view(B, Q, M, L, P, 2)
        return multi_scale_deformable_attention(value, map_shapes, locations, weights)


class PillarProjection(NamedTuple):
    """Where the pillars of the BEV cells fall on the images.

    points: (B, N, Q, D, 2), x then y as a fraction of the padded image.
    visible: (B, N, Q) bool, true where a camera sees at least one of the D heights.
    rows: (B, N, k) int64, which queries a camera sees, in order; Q fills up where it sees fewer than k.
    """

    points: Tensor
    visible: Tensor
    rows: Tensor


def rows_seen(visible_BNQ: Tensor) -> Tensor:
    """See `PillarProjection.rows`. The host waits for the device once, for k: found once a frame."""
    B, N, Q = visible_BNQ.shape
    longest = int(visible_BNQ.sum(-1).amax())
    place = torch.where(visible_BNQ, visible_BNQ.cumsum(-1) - 1, longest)
    rows = place.new_full((B, N, longest + 1), Q)
    # Whatever is not seen lands in the last place, which is dropped.
    return rows.scatter_(-1, place, torch.arange(Q, device=place.device).expand(B, N, Q))[..., :-1]


class SpatialCrossAttention(nn.Module):
    """Each BEV query reads the cameras that see its pillar; the cameras' answers are averaged."""

    def __init__(
        self, *, embed_dims: int, num_heads: int, num_levels: int, num_points: int, dropout: float
    ) -> None:
        super().__init__()
        self.deformable_attention = PillarSampling(
            embed_dims=embed_dims, num_heads=num_heads, num_levels=num_levels, num_points=num_points
        )
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        self.deformable_attention.init_weights()
        init_projection(self.output_proj)

    def forward(
        self, query_BQC: Tensor, value_BNSC: Tensor, pillars: PillarProjection, map_shapes: MapShapes
    ) -> Tensor:
        """(B, Q, C) with the residual added. Only the queries a camera sees are computed for it."""
        B, N, _, C = value_BNSC.shape
        sample_B1 = torch.arange(B, device=query_BQC.device)[:, None]
        sample_B11, camera_N1 = sample_B1[..., None], torch.arange(N, device=query_BQC.device)[:, None]
        # What fills a camera's rows up reads the last query, and lands on a row that nobody reads.
        rows_BNk = pillars.rows.clamp(max=query_BQC.shape[1] - 1)
        queries = query_BQC[sample_B11, rows_BNk]
        points = pillars.points[sample_B11, camera_N1, rows_BNk].contiguous()

        read = self.deformable_attention(
            queries.flatten(0, 1), value_BNSC.flatten(0, 1), points.flatten(0, 1), map_shapes
        ).view(B, N, -1, C)

        slots = read.new_zeros(B, query_BQC.shape[1] + 1, C)
        for n in range(N):
            # A row occurs once a camera, so this adds each row once: the same bytes in every run.
            slots[sample_B1, pillars.rows[:, n]] += read[:, n]
        slots = slots[:, :-1]
        cameras_BQ1 = pillars.visible.sum(1).clamp(min=1).unsqueeze(-1)
        return query_BQC + self.dropout(self.output_proj(slots / cameras_BQ1))
