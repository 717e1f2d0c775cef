"""The focal term on image maps: read the student's maps exactly where the teacher's decoder read its own.

Shapes: B batch, N cameras, C channels, h w cells of a level, V levels, L decoder layers, Q object queries
(k of them confident).
Source: Zeng et al., Distilling Focal Knowledge from Imperfect Expert for 3D Object Detection, CVPR 2023,
abstract and overview figure; the reading is eq. 5-7 of Wang et al., CoRL 2021, with learnt weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.checks import ShapeMismatch, check_shapes, compute_dtype, zero_with_graph
from train.losses.regions import Regions, per_sample, weights_of


class ImageFocalSampling(nn.Module):
    """Compare what the teacher's points and weights read from the image maps of both.

    Args:
        weight: factor on the returned loss.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(
        self,
        student_maps: Sequence[Tensor],
        image_points: Tensor,
        image_visible: Tensor,
        image_weights: Tensor,
        focal_feats: Tensor,
        confidence_BQ: Regions,
    ) -> Tensor:
        """Scalar: squared distance, sum over channels, mean over layers, and over queries by confidence.

        Averaged over the samples; one without a confident query counts as zero.

        Args:
            student_maps: one (B, N, C, h, w) a level, finest first; points are fractions of the image, so a
                level may have any size.
            image_points: (B, L, Q, N, 2), x then y in [0, 1] of the image.
            image_visible: (B, L, Q, N) bool, whether the camera sees the point.
            image_weights: (B, L, Q, N, V).
            focal_feats: (B, L, Q, C), what they read from the teacher's maps.
            confidence_BQ: weight ≥ 0 of each query; zero leaves it out, and costs nothing.

        Raises ShapeMismatch when shapes do not fit together.
        """
        regions, weights_BQ = per_sample(confidence_BQ), weights_of(confidence_BQ)
        self._check(student_maps, image_points, image_visible, image_weights, focal_feats, weights_BQ)
        dtype = compute_dtype(student_maps[0])
        losses = [zero_with_graph(student_maps)]
        with torch.autocast(student_maps[0].device.type, enabled=False):
            for b, (confidence_Q, chosen, _) in enumerate(regions):
                if not len(chosen):
                    continue
                visible = image_visible[b][:, chosen].to(dtype)
                read_LkC = _read(
                    [feats[b].to(dtype) for feats in student_maps],
                    image_points[b][:, chosen].to(dtype),
                    image_weights[b][:, chosen].to(dtype) * visible[..., None],
                )
                distance_Lk = (read_LkC - focal_feats[b][:, chosen].to(dtype)).square().sum(-1)
                confidence_k = confidence_Q[chosen].to(dtype)
                losses.append((distance_Lk.mean(0) * confidence_k).sum() / confidence_k.sum())
        return torch.stack(losses).sum() * (self.weight / max(len(regions), 1))

    @staticmethod
    def _check(
        maps: Sequence[Tensor],
        points: Tensor,
        visible: Tensor,
        weights: Tensor,
        focal_feats: Tensor,
        confidence: Tensor,
    ) -> None:
        term = "ImageFocalSampling"
        if not maps or maps[0].dim() != 5 or points.dim() != 5:
            raise ShapeMismatch(
                f"{term}: expected student maps (B, N, C, h, w) and image_points (B, L, Q, N, 2), got"
                f" {[tuple(feats.shape) for feats in maps]} and {tuple(points.shape)}"
            )
        (B, N, C), (L, Q) = maps[0].shape[:3], points.shape[1:3]
        check_shapes(
            term,
            image_points=(points, (B, L, Q, N, 2)),
            image_visible=(visible, (B, L, Q, N)),
            image_weights=(weights, (B, L, Q, N, len(maps))),
            focal_feats=(focal_feats, (B, L, Q, C)),
            confidence=(confidence, (B, Q)),
            **{f"student_maps.{i}": (feats, (B, N, C, None, None)) for i, feats in enumerate(maps)},
        )


def _read(maps_NChw: Sequence[Tensor], points_LkN2: Tensor, weights_LkNV: Tensor) -> Tensor:
    """(L, k, C): bilinear, cells outside a map count as zero; points that no camera sees have weight zero."""
    L, k, N, _ = points_LkN2.shape
    grid_N1P2 = (2 * points_LkN2 - 1).permute(2, 0, 1, 3).reshape(N, 1, L * k, 2)
    total = 0
    for level, feats in enumerate(maps_NChw):
        sampled_NCP = F.grid_sample(feats, grid_N1P2, align_corners=False)[:, :, 0]
        weights_NP = weights_LkNV[..., level].permute(2, 0, 1).reshape(N, 1, L * k)
        total = total + (sampled_NCP * weights_NP).sum(0)
    return total.T.view(L, k, -1)
