"""The student, the parts that only training needs, and the sum of losses that mmengine drives.

Shapes: B batch, N cameras.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from camera3d.detectors import Detector, Outputs
from camera3d.detectors.samples import ground_truth
from train.distillers.areas import FRAME_NAMES, AreaArtist, SampleAreas
from train.distillers.compared import ComparedMaps
from train.distillers.step import DistillationStep
from train.losses import MaskedGenerator
from train.targets import TeacherTargets


class TargetSource(Protocol):
    """Where the teacher's outputs of a batch come from: a store, or the teacher itself."""

    def targets(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list],
    ) -> TeacherTargets:
        """Targets of the last frame of each queue, on the device of `inputs`."""


class Distiller(BaseModel):
    """`L = L_detection(student) + distillation terms`.

    Only `student` is exported: the layers of the terms and the generator end with the training.

    Args:
        student: a detector that is trained.
        terms: by name, see train/distillers/terms.py; none when the student only starts from the teacher.
        bev_generator: None when no term reads a generated map.
        artist: draws where the terms look.
        source: of the targets. No part of the model: it is not trained, not saved and not moved.
    """

    def __init__(
        self,
        *,
        student: Detector,
        terms: Mapping[str, nn.Module],
        bev_generator: MaskedGenerator | None,
        maps: ComparedMaps,
        artist: AreaArtist,
        source: TargetSource,
    ) -> None:
        # Pinned batches then travel to the device while the host goes on.
        super().__init__(data_preprocessor={"type": "BaseDataPreprocessor", "non_blocking": True})
        self.student = student
        self.terms = nn.ModuleDict(terms)
        self.bev_generator = bev_generator
        self.maps, self.artist = maps, artist
        # Wrapped, so that nn.Module does not adopt a live teacher's weights.
        self._source = (source,)

    @property
    def source(self) -> TargetSource:
        """Where the targets come from."""
        return self._source[0]

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list] | None = None,
        mode: str = "loss",
    ) -> dict[str, Tensor] | list[Det3DDataSample] | Outputs:
        """mmengine's entry: `loss` gives the named losses, other modes are the student's."""
        if mode != "loss":
            return self.student(inputs, data_samples, mode=mode)
        outputs = self.student.history.outputs(self.student, inputs)
        losses = self.detection_losses(outputs, data_samples)
        targets = self.source.targets(inputs, data_samples, extras or {})
        areas = self.areas(targets, inputs, data_samples, extras or {})
        return losses | self.distillation_losses(outputs, targets, areas)

    def detection_losses(self, outputs: Outputs, data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """The student's own losses against the ground truth."""
        return self.student.detection_loss(outputs, ground_truth(data_samples))

    def distillation_losses(
        self,
        outputs: Outputs,
        targets: TeacherTargets,
        areas: Sequence[SampleAreas],
    ) -> dict[str, Tensor]:
        """The losses of all terms, by name."""
        step = DistillationStep(
            student=outputs,
            teacher=targets,
            areas=areas,
            maps=self.maps,
            bev_generator=self.bev_generator,
        )
        losses: dict[str, Tensor] = {}
        for term in self.terms.values():
            losses |= term(step)
        return losses

    def areas(
        self,
        targets: TeacherTargets,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list],
    ) -> list[SampleAreas]:
        """Where the terms look: as a data worker drew it, or drawn here for a live teacher."""
        if "areas" in extras:
            return extras["areas"]
        truths = ground_truth(data_samples)
        placing = {name: inputs[name][:, -1].cpu() for name in FRAME_NAMES if name in inputs}
        areas = [
            self.artist.draw(truth.boxes.cpu(), alone, {name: values[b] for name, values in placing.items()})
            for b, (truth, alone) in enumerate(zip(truths, targets.on_host(), strict=True))
        ]
        return self.data_preprocessor.cast_data(areas)

    def init_weights(self) -> None:
        """Nothing: the builder has done it, and the student may hold loaded weights."""
