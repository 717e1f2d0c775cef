"""Which cells and which queries profile `focal` keeps of a sample.

Shapes: n boxes, L decoder layers, Q object queries, N cameras, H W BEV cells, h w cells of a level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cache_schema.array_spec import BEV_MAP, IMAGE_MAP, QUERY, ArraySpec
from cache_schema.detections import DETECTION_BOXES, DETECTION_SCORES
from cache_schema.spec import FocalFacts
from camera3d.boxes import BOXES_2D, move_boxes
from camera3d.data import Frame
from camera3d.data.coco.index import CocoFrame
from camera3d.instance_areas import bev_area, pv_areas, query_confidence
from camera3d.picture_areas import box_areas

QUERY_LOGITS = "query_logits"


@dataclass(frozen=True, kw_only=True)
class FocalOptions:
    """How much is kept. docs/decisions/0004 says why the BEV margin is wider than the losses' own.

    Attributes:
        min_score: from which on a detection makes areas, and a query is kept.
        at_most: detections that make areas, and queries that are kept, of a sample: the best ones.
        bev_margin_m: by how many metres a footprint is pushed out.
        pv_margin_cells: by how many cells of an image level a silhouette is pushed out.
        background_block: side in map cells of a block that is averaged.
    """

    min_score: float = 0.1
    at_most: int = 300
    bev_margin_m: float = 1.5
    pv_margin_cells: float = 1.0
    background_block: int = 8

    def facts(self, range_m: Sequence[float] | None) -> FocalFacts:
        """What the store says about it; `range_m` see `covered_m`."""
        return FocalFacts(
            min_score=self.min_score,
            background_block=self.background_block,
            areas={
                "boxes": "ground truth centred in the range, detections of the teacher",
                "range_m": None if range_m is None else [float(edge) for edge in range_m],
                "at_most": self.at_most,
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
        arrays: that the store takes.
        range_m: see `covered_m`; range_frame: what it is metres of, see `covered_frame`.
    """

    def __init__(
        self,
        options: FocalOptions,
        *,
        arrays: Sequence[ArraySpec],
        range_m: Sequence[float] | None,
        range_frame: str = "lidar",
    ) -> None:
        self._options = options
        self._levels = [array for array in arrays if array.role == IMAGE_MAP]
        self._bevs = [array for array in arrays if array.role == BEV_MAP]
        self._stores_queries = any(array.role == QUERY for array in arrays)
        self._range_m, self._range_frame = range_m, range_frame

    def kept(self, frame: Frame | CocoFrame, tensors: Mapping[str, Tensor]) -> Kept:
        """What to keep of a frame.

        Args:
            tensors: detections as a store has them, `lidar2img` (N, 4, 4), with BEV maps in the ego frame
                `lidar2ego` (4, 4), and where the store takes arrays about queries, `query_logits` (L, Q, K).
                Of 2D boxes: `image_hw` and `valid_hw` (2,) instead of matrices.
        """
        options = self._options
        sure = tensors[DETECTION_SCORES] >= options.min_score
        found = tensors[DETECTION_BOXES][sure][: options.at_most].double()
        confident = None
        if self._stores_queries:
            score = query_confidence(
                tensors[QUERY_LOGITS][-1], min_score=options.min_score, at_most=options.at_most
            )
            confident = (score > 0).cpu().numpy()
        areas_of = self._on_picture if found.shape[1] == BOXES_2D.numbers else self._in_space
        areas = areas_of(frame, found, tensors)
        return Kept(areas={name: area.cpu().numpy() for name, area in areas.items()}, confident=confident)

    def _on_picture(
        self, frame: CocoFrame, found: Tensor, tensors: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """bool, by the map's name: the areas of 2D boxes."""
        truth = torch.tensor(frame.gt_boxes[~frame.crowd]).view(-1, BOXES_2D.numbers)
        areas = box_areas(
            torch.cat((truth.to(found), found)),
            image_hw=tensors["image_hw"],
            valid_hw=tensors["valid_hw"],
            map_hws=[level.shape[-2:] for level in self._levels],
            strides=[level.stride for level in self._levels],
            margin_cells=self._options.pv_margin_cells,
        )
        return {level.name: area for level, area in zip(self._levels, areas, strict=True)}

    def _in_space(self, frame: Frame, found: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Likewise, of 3D boxes."""
        lidar2ego = tensors.get("lidar2ego")
        boxes = torch.cat((self._ground_truth(frame, lidar2ego).to(found), found))[:, :7]
        return self._areas(boxes, tensors["lidar2img"], lidar2ego)

    def _ground_truth(self, frame: Frame, lidar2ego: Tensor | None) -> Tensor:
        """(n, 9): boxes whose centre the teacher covers; no loss looks at the others."""
        boxes = torch.tensor(frame.gt_boxes).view(-1, 9)
        if self._range_m is None:
            return boxes
        low, high = boxes.new_tensor(self._range_m).view(2, 3)[:, :2]
        centres = boxes if self._range_frame == "lidar" else move_boxes(boxes, lidar2ego.cpu())
        return boxes[((centres[:, :2] >= low) & (centres[:, :2] <= high)).all(1)]

    def _areas(self, boxes: Tensor, lidar2img: Tensor, lidar2ego: Tensor | None) -> dict[str, Tensor]:
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
        for bev in self._bevs:
            areas[bev.name] = bev_area(
                boxes if bev.frame == "lidar" else move_boxes(boxes, lidar2ego),
                map_hw=bev.shape[-2:],
                xy_range_m=tuple(bev.extent_m[axis] for axis in (0, 1, 3, 4)),
                margin_m=self._options.bev_margin_m,
            )
        return areas


def covered_m(outputs: Sequence[ArraySpec]) -> tuple[float, ...] | None:
    """x, y, z minimum, then maximum, of what a teacher covers, as its outputs say; None when none does."""
    return next((array.extent_m for array in outputs if array.extent_m is not None), None)


def covered_frame(outputs: Sequence[ArraySpec]) -> str:
    """The frame that `covered_m` is metres of; "lidar" when nothing is covered."""
    return next((array.frame for array in outputs if array.extent_m is not None), "lidar")
