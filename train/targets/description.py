"""What must be known about a teacher before the first step: shapes, geometry and the weights of its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from torch import Tensor

from cache_schema.reader import TargetReader
from camera3d.detectors import Detector
from camera3d.detectors.bevformer.start import HeadScale

# Of the decoder's attention to the BEV map, by layer.
VALUE_PROJECTION = "pts_bbox_head.transformer.decoder.layers.{}.attentions.1.value_proj."


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
        bev_hw: cells of the teacher's BEV map along y and x, whether or not the store holds that map.
        head: the weights behind the image maps, by the detector's keys.
    """

    name: str
    profile: str
    shapes: Mapping[str, tuple[int, ...]]
    pv_strides: tuple[float, ...]
    image_scale: float
    point_cloud_range: tuple[float, ...]
    bev_hw: tuple[int, int]
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
            bev_hw=tuple(spec.teacher.config["pts_bbox_head"]["bev_hw"]),
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
            bev_hw=tuple(config.model.pts_bbox_head.bev_hw),
            head={key: value.detach().cpu() for key, value in detector.head_weights().items()},
        )

    @property
    def bev_channels(self) -> int | None:
        """Width of the teacher's BEV map; None when neither map nor head tells."""
        if "bev_feats" in self.shapes:
            return self.shapes["bev_feats"][0]
        weight = self.head.get(f"{VALUE_PROJECTION.format(0)}weight")
        return None if weight is None else weight.shape[1]

    @property
    def head_scale(self) -> HeadScale:
        """What the cells of the teacher's maps cover."""
        return HeadScale(
            bev_hw=self.bev_hw,
            point_cloud_range=self.point_cloud_range,
            pv_cell_pixels=tuple(stride / self.image_scale for stride in self.pv_strides),
        )
