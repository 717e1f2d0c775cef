"""The focal term: read the student's BEV map exactly where the teacher's decoder read its own.

Shapes: B batch, C channels, H W BEV map height and width, L decoder layers, Q object queries (k of them
confident), M heads, P sampling points, d = C / M channels a head.
Source: Zeng et al., Distilling Focal Knowledge from Imperfect Expert for 3D Object Detection, CVPR 2023,
abstract and overview figure; the attention is eq. 2 of Zhu et al., Deformable DETR, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.checks import ShapeMismatch, check_shapes, compute_dtype, zero_with_graph
from train.losses.regions import Regions, per_sample, weights_of


class FocalSampling(nn.Module):
    """Compare what the teacher's sampling positions and weights read from both maps.

    Args:
        value_projections: the teacher's value projection of each decoder layer, C to C. Freeze them
            (`requires_grad_(False)`), or the loss can be had by shrinking them.
        weight: factor on the returned loss.
    """

    def __init__(self, *, value_projections: Sequence[nn.Linear], weight: float = 1.0) -> None:
        super().__init__()
        self.value_projections = nn.ModuleList(value_projections)
        self.weight = weight

    def forward(
        self,
        student_BCHW: Tensor,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        focal_feats: Tensor,
        confidence_BQ: Regions,
    ) -> Tensor:
        """Scalar: squared distance, sum over channels, mean over layers, and over queries by confidence.

        Averaged over the samples; one without a confident query counts as zero.

        Args:
            student_BCHW: the student's BEV map, its own or the generated one. Locations are fractions of the
                map, so it may have any size; its channels are the teacher's.
            sampling_locations: (B, L, Q, M, 1, P, 2), x then y in [0, 1] of the map.
            attention_weights: (B, L, Q, M, 1, P).
            focal_feats: (B, L, Q, C), what they read from the teacher's projected map.
            confidence_BQ: weight ≥ 0 of each query; zero leaves it out, and costs nothing.

        Raises ShapeMismatch when shapes do not fit together.
        """
        regions, weights_BQ = per_sample(confidence_BQ), weights_of(confidence_BQ)
        self._check(student_BCHW, sampling_locations, attention_weights, focal_feats, weights_BQ)
        dtype = compute_dtype(student_BCHW)
        losses = [zero_with_graph([student_BCHW, *self.parameters()])]
        # Half precision would cost more in the projections' rounding than the few queries cost in time.
        with torch.autocast(student_BCHW.device.type, enabled=False):
            for b, (confidence_Q, chosen, _) in enumerate(regions):
                if not len(chosen):
                    continue
                read_LkC = self._read(
                    student_BCHW[b].to(dtype),
                    sampling_locations[b][:, chosen, :, 0].to(dtype),
                    attention_weights[b][:, chosen, :, 0].to(dtype),
                )
                distance_Lk = (read_LkC - focal_feats[b][:, chosen].to(dtype)).square().sum(-1)
                confidence_k = confidence_Q[chosen].to(dtype)
                losses.append((distance_Lk.mean(0) * confidence_k).sum() / confidence_k.sum())
        return torch.stack(losses).sum() * (self.weight / max(len(student_BCHW), 1))

    def _read(self, bev_CHW: Tensor, locations_LkMP2: Tensor, weights_LkMP: Tensor) -> Tensor:
        """(L, k, C): sampled first, projected after, which is the same sum in another order.

        Projecting 100 read-outs a layer instead of all 40,000 cells is what makes the term cheap. The bias
        belongs to cells inside the map, so it counts as often as a map of ones was read.
        """
        L, k, M, P, _ = locations_LkMP2.shape
        C = len(bev_CHW)
        with_ones = torch.cat((bev_CHW, torch.ones_like(bev_CHW[:1])))
        grid = (2 * locations_LkMP2 - 1).view(1, L * k * M, P, 2)
        sampled = F.grid_sample(with_ones[None], grid, align_corners=False)[0]
        mixed = (sampled * weights_LkMP.view(L * k * M, P)).sum(-1).view(C + 1, L, k, M)
        per_layer = []
        for layer, projection in enumerate(self.value_projections):
            weight_MdC = projection.weight.to(mixed).view(M, C // M, C)
            bias_Md = projection.bias.to(mixed).view(M, C // M)
            value = torch.einsum("ckm,mdc->kmd", mixed[:C, layer], weight_MdC)
            per_layer.append((value + mixed[C, layer][..., None] * bias_Md).flatten(1))
        return torch.stack(per_layer)

    def _check(
        self, student: Tensor, locations: Tensor, weights: Tensor, focal_feats: Tensor, confidence: Tensor
    ) -> None:
        term, L = "FocalSampling", len(self.value_projections)
        if student.dim() != 4 or locations.dim() != 7:
            raise ShapeMismatch(
                f"{term}: expected student (B, C, H, W) and sampling_locations (B, L, Q, M, 1, P, 2), got"
                f" {tuple(student.shape)} and {tuple(locations.shape)}"
            )
        B, C = student.shape[:2]
        Q, M, P = locations.shape[2], locations.shape[3], locations.shape[5]
        check_shapes(
            term,
            sampling_locations=(locations, (B, L, Q, M, 1, P, 2)),
            attention_weights=(weights, (B, L, Q, M, 1, P)),
            focal_feats=(focal_feats, (B, L, Q, C)),
            confidence=(confidence, (B, Q)),
            **{
                f"value_projections.{i}": (layer.weight, (C, C))
                for i, layer in enumerate(self.value_projections)
            },
        )
        if C % M:
            raise ShapeMismatch(f"{term}: {C} channels cannot be shared by {M} heads")
