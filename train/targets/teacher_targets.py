"""The teacher's maps and queries of a batch, unpacked where the student computes.

Shapes: B batch, N cameras, C channels, H W cells of a map, K kept cells, L decoder layers, Q object queries
(n of them kept). A BEV map has no camera dimension; N below is then left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cache_schema.detections import DETECTION_BOXES, DETECTION_SCORES
from cache_schema.profiles.focal import CONFIDENT_ARRAY
from camera3d.data.augmentation import Moves
from camera3d.instance_areas import query_confidence
from train.targets.layout import TargetLayout
from train.targets.warp import POINTS, TargetWarp


class TeacherTargets:
    """What the teacher said about each sample of a batch.

    Maps are made when they are asked for and belong to the caller, so that only one is unpacked at a time.
    Half precision is what unpacked int8 gets: its rounding is a hundredth of a quantisation step, and single
    precision would double what the losses keep for the backward pass.

    Args:
        samples: for each sample the arrays as they were stored, on the device.
        layout: how they are packed.
        warp: with `moves`, takes all that is asked for to where an augmented student sees it.
        moves: of each sample; None: nothing is moved.
    """

    def __init__(
        self,
        samples: Sequence[Mapping[str, Tensor]],
        layout: TargetLayout,
        warp: TargetWarp | None = None,
        moves: Sequence[Moves] | None = None,
    ) -> None:
        self.samples, self.layout = samples, layout
        self.warp, self.moves = (None, None) if warp is None or moves is None else (warp, moves)

    def map(self, name: str) -> Tensor:
        """(B, N, C, H, W) floating-point map of the teacher.

        Of profile `focal`: the kept cells in their places and the mean of the block elsewhere.
        """
        # Half precision is not what bfloat16 autocast expects to stack.
        with torch.autocast(self._device_type, enabled=False):
            return self._map(name)

    def _map(self, name: str) -> Tensor:
        unpack = {"exact": self._exact, "compact": self._compact, "focal": self._focal}[self.layout.profile]
        maps = [unpack(sample, name) for sample in self.samples]
        if self.moves is not None:
            maps = [self.warp.map(name, *pair) for pair in zip(maps, self.moves, strict=True)]
        return maps[0][None] if len(maps) == 1 else torch.stack(maps)

    def queries(self, name: str) -> Tensor:
        """(B, L, Q, …) array of the object queries, zero for those that were not kept."""
        with torch.autocast(self._device_type, enabled=False):
            values = [self._sample_queries(sample, name) for sample in self.samples]
            if self.moves is not None:
                values = [self.warp.queries(name, *pair) for pair in zip(values, self.moves, strict=True)]
            return torch.stack(values)

    def confidence(self, *, min_score: float, at_most: int) -> Tensor:
        """(B, Q) float32: score of each confident query of the last layer, zero for the others.

        Also zero for queries that read what the student is not shown.
        """
        scores = []
        for number, sample in enumerate(self.samples):
            kept = self._kept(sample)
            logits = self._rows(sample, "query_logits")[:, -1]
            score = query_confidence(logits.float(), min_score=min_score, at_most=at_most)
            if kept is not None:
                score = score.new_zeros(self.layout.num_queries).masked_scatter(kept, score)
            scores.append(score if self.moves is None else score * self._shown(number))
        return torch.stack(scores)

    def detected_boxes(self, *, min_score: float, at_most: int) -> list[Tensor]:
        """For each sample the (n, 9) boxes that the teacher is sure of; convention of camera3d.boxes."""
        found = [
            sample[DETECTION_BOXES][sample[DETECTION_SCORES] >= min_score][:at_most]
            for sample in self.samples
        ]
        if self.moves is None:
            return found
        return [self.warp.boxes(*pair) for pair in zip(found, self.moves, strict=True)]

    def inside(self, name: str, map_hw: tuple[int, int]) -> list[Tensor] | None:
        """For each sample which cells of a map the teacher saw, (N, h, w) or (H, W) bool; None: all."""
        if self.moves is None:
            return None
        return [self.warp.inside(name, map_hw, moves) for moves in self.moves]

    def on_host(self) -> list[TeacherTargets]:
        """For each sample what areas are drawn from, in the host's memory."""
        names = (DETECTION_BOXES, DETECTION_SCORES, "query_logits", CONFIDENT_ARRAY)
        names += () if self.moves is None else POINTS
        alone = []
        for number, sample in enumerate(self.samples):
            arrays = {name: sample[name].cpu() for name in names if name in sample}
            moves = None if self.moves is None else [Moves(*(m.cpu() for m in self.moves[number]))]
            alone.append(TeacherTargets([arrays], self.layout, self.warp, moves))
        return alone

    @property
    def _device_type(self) -> str:
        return next(iter(self.samples[0].values())).device.type

    def _rows(self, sample: Mapping[str, Tensor], name: str) -> Tensor:
        """(n, L, …): queries first. All Q of them unless only the confident ones are there."""
        values = sample[name]
        return values if self.layout.only_confident else values.movedim(self.layout.query_axes[name], 0)

    def _kept(self, sample: Mapping[str, Tensor]) -> Tensor | None:
        """(Q,) bool, None when all are kept."""
        return sample[CONFIDENT_ARRAY] if self.layout.only_confident else None

    def _shown(self, number: int) -> Tensor | float:
        """(Q,) bool, see `TargetWarp.kept`; 1 when all are."""
        sample = self.samples[number]
        points = {name: self._sample_queries(sample, name) for name in POINTS if name in sample}
        kept = self.warp.kept(points, self.moves[number])
        return 1.0 if kept is None else kept

    def _sample_queries(self, sample: Mapping[str, Tensor], name: str) -> Tensor:
        rows, kept = self._rows(sample, name), self._kept(sample)
        if kept is not None:
            full = rows.new_zeros(self.layout.num_queries, *rows.shape[1:])
            rows = full.masked_scatter(kept.view(-1, *[1] * (rows.dim() - 1)), rows)
        return rows.movedim(0, self.layout.query_axes[name])

    @staticmethod
    def _exact(sample: Mapping[str, Tensor], name: str) -> Tensor:
        return sample[name]

    @staticmethod
    def _compact(sample: Mapping[str, Tensor], name: str) -> Tensor:
        return _dequantise(sample[name], sample[f"{name}_scale"][..., None, None])

    def _focal(self, sample: Mapping[str, Tensor], name: str) -> Tensor:
        mask = sample[f"{name}_mask"]
        blocks = _dequantise(
            sample[f"{name}_background"], sample[f"{name}_background_scale"][..., None, None]
        )
        side = self.layout.background_block
        filled = blocks.repeat_interleave(side, -2).repeat_interleave(side, -1)
        filled = filled[..., : mask.shape[-2], : mask.shape[-1]].movedim(-3, -1).contiguous()
        scale = sample[f"{name}_scale"]
        cells = sample[f"{name}_cells"]
        # Counted out by their known number and put in by the mask: nothing that a GPU's host waits for.
        if mask.dim() == 3:
            scale = scale.repeat_interleave(mask.flatten(1).sum(1), 0, output_size=len(cells))
        filled = filled.masked_scatter(mask[..., None], _dequantise(cells, scale))
        return filled.movedim(-1, -3)


def _dequantise(values: Tensor, scale: Tensor) -> Tensor:
    """float16 of int8 values and float32 scales that broadcast over them; products in float32."""
    return (values * scale).half()
