"""What must be known about a teacher before the first step: shapes, geometry and the weights of its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from torch import Tensor

from cache_schema.reader import TargetReader
from camera3d.detectors import Detector


@dataclass(frozen=True, kw_only=True)
class TeacherDescription:
    """A teacher, as a store or the teacher itself describes it.

    Attributes:
        name: for messages: the store's path, or the config's file.
        profile: of the store; `exact` for a live teacher.
        shapes: of one sample, by the array's name.
        pv_strides: the teacher's input pixels a cell, by image level.
        image_scale: factor from camera pixels to the teacher's input.
        point_cloud_range: x, y, z minimum, then maximum, in metres: what the BEV map covers.
        head: weights of decoder, branches and query embeddings, by the detector's keys.
    """

    name: str
    profile: str
    shapes: Mapping[str, tuple[int, ...]]
    pv_strides: tuple[float, ...]
    image_scale: float
    point_cloud_range: tuple[float, ...]
    head: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def of_store(cls, reader: TargetReader) -> TeacherDescription:
        """Raises StoreNotFound when the store has no teacher head, Corrupt when it is damaged."""
        spec = reader.spec
        head = {name: torch.from_numpy(values) for name, values in reader.read_teacher_head().items()}
        return cls(
            name=str(reader.path),
            profile=spec.profile,
            shapes={array.name: array.shape for array in spec.arrays},
            pv_strides=spec.outputs.pv_strides,
            image_scale=spec.inputs.pipeline["scale"],
            point_cloud_range=tuple(spec.teacher.config["point_cloud_range"]),
            head=head,
        )

    @classmethod
    def of_detector(cls, detector: Detector, config: Config) -> TeacherDescription:
        """A teacher that is there itself."""
        maps = detector.feature_maps(tuple(config.inputs.pad_hw))
        return cls(
            name=str(config.filename or "the teacher"),
            profile="exact",
            shapes={feature_map.name: feature_map.shape for feature_map in maps},
            pv_strides=tuple(m.stride for m in maps if m.stride is not None),
            image_scale=config.inputs.scale,
            point_cloud_range=tuple(config.model.point_cloud_range),
            head={key: value.detach().cpu() for key, value in detector.distillation_head().items()},
        )
