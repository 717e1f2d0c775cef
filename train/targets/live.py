"""The teacher in the loop, to compare the cache with.

Shapes: B batch, T frames of a queue, N cameras, H W input height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from mmdet3d.structures import Det3DDataSample
from torch import Tensor
from torch.utils.data import Dataset

from cache_schema.detections import DETECTION_ARRAYS, MAX_DETECTIONS
from camera3d.data.queue_dataset import MOVES
from camera3d.detectors import Detector, Outputs
from camera3d.detectors.protocol import QUERY
from camera3d.streaming import run_scene
from train.targets.layout import TargetLayout
from train.targets.teacher_targets import TeacherTargets
from train.targets.warp import TargetWarp


class LiveSource:
    """`live`: the teacher runs as it did for the cache, from the first frame of the scene to the one wanted.

    A sample in the middle of a nuScenes scene costs some twenty forward passes: it is what a cache saves.

    Args:
        teacher: with its weights, on the device; frozen here.
        frames: undistorted frames of the index that is trained on, prepared as the teacher wants them.
        warp: what moves targets of augmented samples.
    """

    def __init__(self, teacher: Detector, frames: Dataset, warp: TargetWarp) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.frames, self.warp = frames, warp
        self.layout = layout_of(teacher)

    @torch.no_grad()
    def targets(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list],
    ) -> TeacherTargets:
        """See TargetSource."""
        device = inputs["images"].device
        samples = []
        # Autocast and TF32 are the student's affair: the cache was made without.
        with torch.autocast(device.type, enabled=False), exact_convolutions():
            for sample in data_samples:
                row = self.frames.index.row_of(sample.sample_token)
                first = self.frames.index.scene_of_row(row).first if self.teacher.has_state else row
                rows = range(first, row + 1)
                frames = (self.frames[earlier] for earlier in rows)
                for _, outputs in run_scene(self.teacher, frames, device, torch.no_grad):  # noqa: B007
                    pass
                samples += sample_arrays(self.teacher, outputs)
        return TeacherTargets(samples, self.layout, self.warp, extras.get(MOVES))


class DistortedLiveSource:
    """`live_fd`: the teacher sees what the student sees, enlarged, as the released HeatmapDistiller has it.

    That is the student's photometrically distorted images and its short queue with a dropped frame, instead
    of what the teacher was trained to be evaluated on. Augmented samples it sees augmented: nothing is to be
    moved. Exists to be compared with.

    Args:
        teacher: with its weights, on the device; frozen here.
        image_hw: of the teacher's input.
    """

    def __init__(self, teacher: Detector, image_hw: tuple[int, int]) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.image_hw = tuple(image_hw)
        self.layout = layout_of(teacher)

    @torch.no_grad()
    def targets(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list],
    ) -> TeacherTargets:
        """See TargetSource."""
        images = inputs["images"]
        with torch.autocast(images.device.type, enabled=False), exact_convolutions():
            enlarged = F.interpolate(
                images.flatten(0, 2), size=self.image_hw, mode="bilinear", align_corners=False
            )
            scale = images.new_ones(4)
            scale[0], scale[1] = (self.image_hw[i] / images.shape[i - 2] for i in (1, 0))
            outputs = self.teacher.training_outputs(
                {
                    **inputs,
                    "images": enlarged.unflatten(0, images.shape[:3]),
                    **{
                        name: scale[:, None].to(inputs[name]) * inputs[name]
                        for name in ("lidar2img", "image_transform")
                        if name in inputs
                    },
                }
            )
        return TeacherTargets(sample_arrays(self.teacher, outputs), self.layout)


def exact_convolutions() -> AbstractContextManager:
    """cuDNN as a dump sets it: deterministic, full single precision."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def sample_arrays(teacher: Detector, outputs: Outputs) -> list[dict[str, Tensor]]:
    """For each sample its arrays by their store names, without a batch dimension."""
    return [
        {name: values[b] for name, values in outputs.items()}
        | dict(zip(DETECTION_ARRAYS, found.best(MAX_DETECTIONS), strict=True))
        for b, found in enumerate(teacher.decode(outputs))
    ]


def layout_of(teacher: Detector) -> TargetLayout:
    """How a teacher's own outputs are packed: as profile `exact`, but for the precision."""
    queries = {spec.name: spec for spec in teacher.output_specs((1, 1)) if spec.role == QUERY}
    axes = {name: spec.dimension_names.index("query") for name, spec in queries.items()}
    counts = [spec.shape[axes[name]] for name, spec in queries.items()]
    return TargetLayout(profile="exact", query_axes=axes, num_queries=counts[0] if counts else 0)
