"""The seam between a detector and everything else: what goes in, what comes out.

Shapes: B batch, N cameras, C channels, L decoder layers, Q object queries, M heads, P sampling points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """A named array of a detector: its shape for one sample, and for image maps the pixels a cell."""

    name: str
    shape: tuple[int, ...]
    dimension_names: tuple[str, ...]
    stride: float | None = None  # input pixels a cell, for perspective-view maps


@dataclass(frozen=True, kw_only=True)
class DetectorOutputs:
    """Everything one frame leaves behind, for a batch of B samples.

    Attributes:
        pv_feats: one (B, N, C, h, w) a feature-pyramid level, finest first.
        bev_feats: (B, C, H, W), H along y and W along x of the LiDAR frame, both ascending.
        query_logits: (L, B, Q, classes), before the sigmoid.
        query_boxes: (L, B, Q, 10) in the official encoding, see camera3d.boxes.
        query_feats: (L, B, Q, C), the decoder's states.
        reference_points: (L, B, Q, 3), what each layer sampled around, in [0, 1] of the point-cloud range.
        sampling_locations: (L, B, Q, M, 1, P, 2), x then y in [0, 1] of the BEV map.
        attention_weights: (L, B, Q, M, 1, P), summing to one over P.
        focal_feats: (L, B, Q, C), what those locations and weights read from the projected BEV map.
    """

    pv_feats: list[Tensor]
    bev_feats: Tensor
    query_logits: Tensor
    query_boxes: Tensor
    query_feats: Tensor
    reference_points: Tensor
    sampling_locations: Tensor
    attention_weights: Tensor
    focal_feats: Tensor

    def sample_arrays(self, index: int) -> dict[str, Tensor]:
        """The arrays of one sample by their store name: the batch dimension is gone."""
        arrays = {f"pv_feats_{level}": feats[index] for level, feats in enumerate(self.pv_feats)}
        arrays["bev_feats"] = self.bev_feats[index]
        for field in fields(self):
            if field.name not in ("pv_feats", "bev_feats"):
                arrays[field.name] = getattr(self, field.name)[:, index]
        return arrays


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Decoded boxes of one sample: (n, 9) in our convention (camera3d.boxes), scores (n,), labels (n,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@runtime_checkable
class Detector(Protocol):
    """What stage 1 and stage 2 ask of a camera-only detector."""

    num_cameras: int
    class_names: tuple[str, ...]
    numerics_version: int  # goes up when the golden outputs change

    def feature_maps(self, image_hw: tuple[int, int]) -> list[FeatureMap]:
        """Name, shape and stride of every entry of `DetectorOutputs.sample_arrays` for that image size."""

    def encode(
        self, images: Tensor, lidar2img: Tensor, can_bus: Tensor, prev_bev: Tensor | None = None
    ) -> DetectorOutputs:
        """One frame: images (B, N, 3, H, W) normalised, lidar2img (B, N, 4, 4), can_bus (B, 18)."""

    def decode(self, outputs: DetectorOutputs) -> list[Detections]:
        """Boxes, scores and labels of the last decoder layer, one entry a sample."""

    def head_weights(self) -> dict[str, torch.Tensor]:
        """All weights behind the image maps, by key: for frozen copies, and for a student's head to start."""
