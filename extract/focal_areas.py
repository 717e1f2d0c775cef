"""Which cells and which queries profile `focal` keeps of a sample.

Shapes: n boxes, L decoder layers, Q object queries, N cameras, H W BEV cells, h w cells of a level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache_schema.errors import NotFinite
from cache_schema.finite import describe_not_finite
from cache_schema.layout import is_map, is_per_query
from cache_schema.spec import ArraySpec, FocalFacts
from camera3d.boxes import decode_official
from camera3d.data import Frame
from camera3d.detectors.protocol import FeatureMap
from camera3d.instance_areas import bev_area, pv_areas, query_confidence


@dataclass(frozen=True, kw_only=True)
class FocalOptions:
    """How much is kept. docs/decisions/0004 says why the BEV margin is wider than the losses' own.

    Attributes:
        confidence: least class probability of a query that is kept.
        at_most: queries that are kept of a sample, the best ones.
        bev_margin_m: by how many metres a footprint is pushed out.
        pv_margin_cells: by how many cells of an image level a silhouette is pushed out.
        background_block: side in map cells of a block that is averaged.
    """

    confidence: float = 0.1
    at_most: int = 300
    bev_margin_m: float = 1.5
    pv_margin_cells: float = 1.0
    background_block: int = 8

    def facts(self, point_cloud_range: Sequence[float]) -> FocalFacts:
        """What the store says about it."""
        return FocalFacts(
            confidence=self.confidence,
            background_block=self.background_block,
            areas={
                "boxes": "ground truth centred in the range, confident queries of the last decoder layer",
                "range_m": [float(edge) for edge in point_cloud_range],
                "queries_at_most": self.at_most,
                "bev_margin_m": float(self.bev_margin_m),
                "pv_margin_cells": float(self.pv_margin_cells),
            },
        )


@dataclass(frozen=True)
class Kept:
    """What is kept of a sample: the last arguments of `SceneWriter.append`. Empty for other profiles.

    Attributes:
        areas: (H, W) or (N, h, w) bool by the map's name, for every stored map.
        confident: (Q,) bool; None when no query array is stored.
    """

    areas: Mapping[str, np.ndarray] | None = None
    confident: np.ndarray | None = None


class FocalAreas:
    """Draws the areas of one sample after the other, on the device that the teacher's outputs are on.

    Args:
        feature_maps: of the teacher, for the shapes and strides of its maps.
        arrays: that the store takes; the other maps need no area.
        point_cloud_range: x, y, z minimum, then maximum, in metres: what the BEV map covers.
    """

    def __init__(
        self,
        options: FocalOptions,
        *,
        feature_maps: Sequence[FeatureMap],
        arrays: Sequence[ArraySpec],
        point_cloud_range: Sequence[float],
    ) -> None:
        wanted = {array.name for array in arrays if is_map(array)}
        self._options = options
        self._levels = [m for m in feature_maps if m.name in wanted and m.stride is not None]
        self._bev = next((m for m in feature_maps if m.name in wanted and m.stride is None), None)
        self._stores_queries = any(map(is_per_query, arrays))
        x_min, y_min, _, x_max, y_max, _ = point_cloud_range
        self._xy_range_m = (x_min, y_min, x_max, y_max)

    def kept(self, frame: Frame, tensors: Mapping[str, Tensor]) -> Kept:
        """What to keep of a frame.

        Args:
            tensors: what the teacher said about it: `query_logits` (L, Q, K), `query_boxes` (L, Q, 10) in the
                official encoding, and `lidar2img` (N, 4, 4).

        Raises:
            NotFinite: the queries are not, which would silently leave their areas out.
        """
        for name in ("query_logits", "query_boxes"):
            if not torch.isfinite(tensors[name]).all():
                found = describe_not_finite(tensors[name].cpu().numpy())
                raise NotFinite(
                    f"scene {frame.scene_name}, sample {frame.sample_token}, array {name}: {found}.\n"
                    "Nothing of this sample was stored: the areas of profile focal depend on these values."
                )
        logits, encoded = tensors["query_logits"][-1], tensors["query_boxes"][-1]
        options = self._options
        confident = query_confidence(logits, min_score=options.confidence, at_most=options.at_most) > 0
        found = decode_official(encoded[confident].double())
        boxes = torch.cat((self._ground_truth(frame).to(found), found))[:, :7]
        areas = self._areas(boxes, tensors["lidar2img"])
        return Kept(
            areas={name: area.cpu().numpy() for name, area in areas.items()},
            confident=confident.cpu().numpy() if self._stores_queries else None,
        )

    def _ground_truth(self, frame: Frame) -> Tensor:
        """(n, 9): boxes whose centre the BEV map covers; no loss looks at the others."""
        boxes = torch.tensor(frame.gt_boxes).view(-1, 9)
        low, high = boxes.new_tensor(self._xy_range_m).view(2, 2)
        return boxes[((boxes[:, :2] >= low) & (boxes[:, :2] <= high)).all(1)]

    def _areas(self, boxes: Tensor, lidar2img: Tensor) -> dict[str, Tensor]:
        """bool, by the map's name; boxes (n, 7) in our convention, so the unknown velocities are gone."""
        levels = (
            pv_areas(
                boxes,
                lidar2img=lidar2img,
                map_hws=[level.shape[-2:] for level in self._levels],
                strides=[level.stride for level in self._levels],
                margin_cells=self._options.pv_margin_cells,
            )
            if self._levels
            else []
        )
        areas = {level.name: area for level, area in zip(self._levels, levels, strict=True)}
        if self._bev is not None:
            areas[self._bev.name] = bev_area(
                boxes,
                map_hw=self._bev.shape[-2:],
                xy_range_m=self._xy_range_m,
                margin_m=self._options.bev_margin_m,
            )
        return areas
