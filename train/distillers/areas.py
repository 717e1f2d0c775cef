"""Where the losses of a step look: instance areas on BEV and image maps, heatmaps, confident queries.

Shapes: N cameras, H W cells of a BEV map, h w cells of an image level, n boxes, Q object queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from camera3d.boxes import move_boxes
from camera3d.data.queue_dataset import MOVES
from camera3d.detectors import OutputSpec
from camera3d.detectors.samples import ground_truth
from camera3d.instance_areas import bev_area, pv_areas
from camera3d.picture_areas import box_areas, valid_cells
from train.distillers.compared import BevPair, ComparedMaps, LevelPair
from train.losses import gaussian_heatmap, resize_heatmap
from train.losses.regions import Region
from train.targets import TargetWarp, TeacherTargets
from train.targets.layout import TargetLayout

# Of a frame, what places boxes on the student's maps.
FRAME_NAMES = ("lidar2img", "lidar2ego", "image_hw", "valid_hw")


@dataclass(frozen=True, kw_only=True)
class AreaOptions:
    """What counts as an instance. docs/decisions/0004 has the reasons.

    Attributes:
        ground_truth, queries: whether annotated boxes and what the teacher detected make areas.
        min_score: from which on a detection or a query of the teacher counts.
        at_most: of a sample, the best ones.
        bev_margin_m: by how many metres a footprint is pushed out. In metres, because a cell of a coarse map
            may be larger than a car.
        pv_margin_cells: by how many cells of an image level a silhouette is pushed out.
    """

    ground_truth: bool = True
    queries: bool = True
    min_score: float = 0.1
    at_most: int = 300
    bev_margin_m: float = 0.5
    pv_margin_cells: float = 1.0


class SampleAreas(NamedTuple):
    """Where the terms look in one sample; None where none does.

    hidden_bev: (1, H, W) instance areas on the student's BEV map, of which the generator hides a part.
    bev: (1, H, W) instance areas on the teacher's BEV map.
    images: for each compared level (N, h, w) instance areas.
    heatmap: (H, W) float32, the ground truth's, on the teacher's BEV map.
    confidence: (Q,) float32, of the teacher's queries.
    seen: for each compared level (N, h, w) bool, which cells hold a part of the picture, and of a moved map
        what the teacher saw; empty when that is all of them. Areas and heatmaps hold none of the others.
    """

    hidden_bev: Region | None
    bev: Region | None
    images: tuple[Region, ...]
    heatmap: Region | None
    confidence: Region | None
    seen: tuple[Tensor, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AreaArtist:
    """Draws the areas of a sample where it was read, in a data worker, and on the host's memory.

    A GPU would need a thousand small launches, and its host would wait for how many cells each area has.

    Attributes:
        hidden_bev, bev, images, heatmap, confidence, seen: what is drawn, see SampleAreas.
    """

    maps: ComparedMaps
    options: AreaOptions
    hidden_bev: bool = False
    bev: bool = False
    images: bool = False
    heatmap: bool = False
    confidence: bool = False
    seen: bool = False

    @torch.no_grad()
    def draw(self, truth: Tensor, teacher: TeacherTargets, frame: Mapping[str, Tensor]) -> SampleAreas:
        """The areas of one sample.

        Args:
            truth: (n, 9) or (n, 4) annotated boxes, where the sample's augmentation has them.
            teacher: of this sample alone.
            frame: what places them, of the student's input, see FRAME_NAMES: `lidar2img` (N, 4, 4), and
                `lidar2ego` (4, 4) for BEV maps in the ego frame; of 2D boxes `image_hw` and `valid_hw` (2,).
        """
        options, bev, maps = self.options, self.maps.bev, self.maps
        limits = {"min_score": options.min_score, "at_most": options.at_most}
        drawn = self.hidden_bev or self.bev or self.images
        boxes = truth[:, :7] if options.ground_truth else truth[:0, :7]
        if options.queries and drawn:
            (detected,) = teacher.detected_boxes(**limits)
            boxes = torch.cat((boxes, detected[:, :7].to(boxes)))
        looked_at = maps.levels if self.images or self.seen else ()
        seen = [_seen(teacher, level.teacher) for level in looked_at]
        images = level_areas(boxes, frame, maps.levels, options) if self.images else []
        if bev is not None and bev.student.frame == "ego":
            boxes, truth = move_boxes(boxes, frame["lidar2ego"]), move_boxes(truth, frame["lidar2ego"])
        return SampleAreas(
            # What is hidden need not be compared.
            hidden_bev=_bev_region(boxes, bev.student, bev, options) if self.hidden_bev else None,
            bev=_bev_region(boxes, bev.teacher, bev, options, teacher) if self.bev else None,
            images=tuple(Region.of(_within(*pair)) for pair in zip(images, seen, strict=False)),
            heatmap=Region.of(_within(heatmap(truth, bev), _seen(teacher, bev.teacher)))
            if self.heatmap
            else None,
            confidence=Region.of(teacher.confidence(**limits)[0]) if self.confidence else None,
            # Pictures that are padded are never moved.
            seen=tuple(picture_cells(frame, maps.levels) or (seen if teacher.moves is not None else ()))
            if self.seen
            else (),
        )


class DrawAreas:
    """Adds `areas` to an item of a training dataset that has its targets."""

    def __init__(self, artist: AreaArtist, layout: TargetLayout, warp: TargetWarp) -> None:
        self.artist, self.layout, self.warp = artist, layout, warp

    def __call__(self, item: dict[str, object]) -> dict[str, object]:
        """The item with `areas`, a SampleAreas."""
        (truth,) = ground_truth([item["data_samples"]])
        moves = [item[MOVES]] if MOVES in item else None
        teacher = TeacherTargets([item["targets"]], self.layout, self.warp, moves)
        frame = {name: item[name][-1] for name in FRAME_NAMES if name in item}
        return item | {"areas": self.artist.draw(truth.boxes, teacher, frame)}


def bev_area_on(boxes: Tensor, own: OutputSpec, bev: BevPair, options: AreaOptions) -> Tensor:
    """(H, W) bool: instance areas on one of the two BEV maps."""
    return bev_area(boxes, map_hw=own.shape[-2:], xy_range_m=bev.xy_range_m, margin_m=options.bev_margin_m)


def level_areas(
    boxes: Tensor, frame: Mapping[str, Tensor], levels: Sequence[LevelPair], options: AreaOptions
) -> list[Tensor]:
    """For each level (N, h, w) bool; see `AreaArtist.draw`."""
    if "valid_hw" not in frame:
        return image_areas(boxes, frame["lidar2img"], levels, options)
    return box_areas(
        boxes,
        image_hw=frame["image_hw"],
        valid_hw=frame["valid_hw"],
        map_hws=[level.student.shape[-2:] for level in levels],
        strides=[level.student.stride for level in levels],
        margin_cells=options.pv_margin_cells,
    )


def picture_cells(frame: Mapping[str, Tensor], levels: Sequence[LevelPair]) -> list[Tensor]:
    """For each level (1, h, w) bool: the cells that are no padding. Empty where pictures fill the input."""
    if "valid_hw" not in frame:
        return []
    return [
        valid_cells(frame["valid_hw"], level.student.shape[-2:], level.student.stride)[None]
        for level in levels
    ]


def image_areas(
    boxes: Tensor, lidar2img: Tensor, levels: Sequence[LevelPair], options: AreaOptions
) -> list[Tensor]:
    """For each level (N, h, w) bool; lidar2img (N, 4, 4) of the student's input."""
    return pv_areas(
        boxes,
        lidar2img=lidar2img,
        map_hws=[level.student.shape[-2:] for level in levels],
        strides=[level.student.stride for level in levels],
        margin_cells=options.pv_margin_cells,
    )


def heatmap(boxes: Tensor, bev: BevPair) -> Tensor:
    """(H, W) of the annotated boxes on the teacher's BEV map, see `resize_heatmap`."""
    drawn = gaussian_heatmap(boxes, xy_range_m=bev.xy_range_m)
    return resize_heatmap(drawn[None], tuple(bev.teacher.shape[-2:]))[0]


def _bev_region(
    boxes: Tensor,
    own: OutputSpec,
    bev: BevPair,
    options: AreaOptions,
    teacher: TeacherTargets | None = None,
) -> Region:
    """Of all cells of a map, or of those that a teacher saw."""
    area = bev_area_on(boxes, own, bev, options)
    return Region.of((area if teacher is None else _within(area, _seen(teacher, own)))[None])


def _seen(teacher: TeacherTargets, own: OutputSpec) -> Tensor | None:
    """Which cells of one of its maps the teacher of a sample saw; None: all."""
    inside = teacher.inside(own.name, tuple(own.shape[-2:]))
    return None if inside is None else inside[0]


def _within(weight: Tensor, seen: Tensor | None) -> Tensor:
    return weight if seen is None else weight * seen
