"""What one frame leaves behind in DETR3D.

Shapes: B batch, N cameras, C channels, L decoder layers, Q object queries, V image levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class LayerReads(NamedTuple):
    """Where the cross-attention of a layer looked and what it saw; (L, ...) when stacked over the layers.

    points: (B, Q, N, 2), x then y in [0, 1] of the input image; zero where not visible.
    visible: (B, Q, N) bool, whether the camera sees the query's reference point.
    weights: (B, Q, N, V), after the sigmoid and before anything is left out as not visible.
    focal_feats: (B, Q, C), the weighted sum over cameras and levels, before the output projection.
    """

    points: Tensor
    visible: Tensor
    weights: Tensor
    focal_feats: Tensor


@dataclass(frozen=True, kw_only=True)
class DETR3DOutputs:
    """Outputs for a batch of B frames.

    Attributes:
        pv_feats: one (B, N, C, h, w) a feature-pyramid level, finest first.
        query_logits: (L, B, Q, classes), before the sigmoid.
        query_boxes: (L, B, Q, 10) in the official encoding, see camera3d.boxes.
        query_feats: (L, B, Q, C), the decoder's states.
        reference_points: (L, B, Q, 3), what each layer sampled around, in [0, 1] of the point-cloud range.
        reads: `LayerReads`, each of its arrays with L in front.
    """

    pv_feats: list[Tensor]
    query_logits: Tensor
    query_boxes: Tensor
    query_feats: Tensor
    reference_points: Tensor
    reads: LayerReads
