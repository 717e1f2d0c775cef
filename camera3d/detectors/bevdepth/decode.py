"""From the heads' maps to boxes.

Shapes: B batch, K classes of a task, Y X cells, n boxes of a sample.
Source: Yin et al., CenterPoint, CVPR 2021, section 4.1 (centres, circle NMS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from camera3d.detectors.protocol import Detections
from camera3d.ops.constants import constant


@dataclass(frozen=True, kw_only=True)
class DecodeRule:
    """How boxes are found.

    Attributes:
        max_cells: cells looked at, of a class and of a task.
        min_score: a box must exceed it.
        center_range: x, y, z from, x, y, z to, in metres, where the centre of a reported box lies.
        squared_radii: a task. A box whose centre is as near to a better one of any class of its task is
            dropped. They are compared with the squared distance, as in the released code, so 4 is 2 metres.
        max_per_task: boxes kept of a task.
    """

    max_cells: int = 500
    min_score: float = 0.1
    center_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)
    squared_radii: Sequence[float] = (4.0, 12.0, 10.0, 1.0, 0.85, 0.175)
    max_per_task: int = 83


@dataclass(frozen=True, kw_only=True)
class BevGrid:
    """What the cells of a BEV map cover: metres of a cell along x and y, and the lowest x and y."""

    cell_m: tuple[float, float]
    low_m: tuple[float, float]


def candidates(maps: Mapping[str, Tensor], grid: BevGrid, rule: DecodeRule) -> list[Detections]:
    """The best cells of a task as boxes, before the NMS, best first; labels count within the task.

    Args:
        maps: of one task by branch, (B, numbers, Y, X).
    """
    maps = {name: values.float() for name, values in maps.items()}
    heat_BKc = maps["heatmap"].sigmoid().flatten(2)
    cells = heat_BKc.shape[-1]
    best, cell = heat_BKc.topk(min(rule.max_cells, cells), dim=-1)
    scores, place = best.flatten(1).topk(min(rule.max_cells, best[0].numel()), dim=-1)
    labels = place // best.shape[-1]
    cell = cell.flatten(1).gather(1, place)
    width = maps["heatmap"].shape[-1]
    row, column = cell // width, cell % width

    def at(branch: str) -> tuple[Tensor, ...]:
        values = maps[branch].flatten(2)
        return values.gather(2, cell[:, None].expand(-1, values.shape[1], -1)).unbind(1)

    offset_x, offset_y = at("reg")
    sin, cos = at("rot")
    x = (column + offset_x) * grid.cell_m[0] + grid.low_m[0]
    y = (row + offset_y) * grid.cell_m[1] + grid.low_m[1]
    sizes = [size.exp() for size in at("dim")]
    boxes = torch.stack((x, y, *at("height"), *sizes, torch.atan2(sin, cos), *at("vel")), dim=-1)

    low, high = constant(tuple(rule.center_range), boxes).view(2, 3)
    kept = ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(-1) & (scores > rule.min_score)
    return [
        Detections(boxes=boxes[b, kept[b]], scores=scores[b, kept[b]], labels=labels[b, kept[b]])
        for b in range(len(boxes))
    ]


def circle_nms(found: Detections, squared_radius: float, max_boxes: int) -> Detections:
    """Without the boxes whose centre is near that of a better one, whatever its class; best first."""
    order = found.scores.argsort(descending=True, stable=True)
    x, y = found.boxes[order, :2].detach().cpu().numpy().astype(np.float32).T
    near = np.square(x[:, None] - x) + np.square(y[:, None] - y) <= np.float32(squared_radius)
    kept: list[int] = []
    dropped = np.zeros(len(x), dtype=bool)
    for number in range(len(x)):
        if len(kept) == max_boxes:
            break
        if not dropped[number]:
            kept.append(number)
            dropped |= near[number]
    rows = order[torch.tensor(kept, dtype=torch.long, device=order.device)]
    return Detections(boxes=found.boxes[rows], scores=found.scores[rows], labels=found.labels[rows])


def decode_tasks(
    tasks: Sequence[Mapping[str, Tensor]],
    class_counts: Sequence[int],
    grid: BevGrid,
    rule: DecodeRule,
) -> list[Detections]:
    """Boxes of all tasks of each sample, best first, in the BEV map's frame.

    Args:
        tasks: of each task its maps by branch.
        class_counts: classes of each task; labels count through all of them.
    """
    by_task = []
    for number, maps in enumerate(tasks):
        first = sum(class_counts[:number])
        radius = rule.squared_radii[number]
        found = [circle_nms(one, radius, rule.max_per_task) for one in candidates(maps, grid, rule)]
        by_task.append([(one.boxes, one.scores, one.labels + first) for one in found])
    samples = []
    for parts in zip(*by_task, strict=True):
        boxes, scores, labels = (torch.cat(values) for values in zip(*parts, strict=True))
        order = scores.argsort(descending=True, stable=True)
        samples.append(Detections(boxes=boxes[order], scores=scores[order], labels=labels[order]))
    return samples
