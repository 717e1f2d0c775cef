"""What must be known about a teacher before the first step: shapes, geometry and the weights of its head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from mmengine.config import Config
from torch import Tensor

from cache_schema.array_spec import QUERY, ArraySpec
from cache_schema.detections import DETECTION_ARRAYS
from cache_schema.errors import StoreNotFound
from cache_schema.reader import TargetReader
from camera3d.detectors import Detector, OutputSpec
from camera3d.detectors.protocol import TeacherHead, with_role
from camera3d.detectors.query_based.start import of_queries


@dataclass(frozen=True, kw_only=True)
class TeacherDescription:
    """A teacher, as a store or the teacher itself describes it.

    Attributes:
        name: for messages: the store's path, or the config's file.
        profile: of the store; `exact` for a live teacher.
        specs: of all its outputs, by name, stored or not.
        stored: names of those that there are targets of.
        image_scale: factor from camera pixels to the teacher's input.
        image_fit: `fit` of its image pipeline, if that has one.
        head: the weights behind the image maps, by the detector's keys; empty when it has none. With a layer
            its head stands in place of the teacher's queries and their decoder.
        layer_head: of these the layer's; empty without one.
    """

    name: str
    profile: str
    specs: Mapping[str, OutputSpec]
    stored: frozenset[str]
    image_scale: float
    head: Mapping[str, Tensor] = field(repr=False)
    image_fit: tuple[int, ...] | None = None
    layer_head: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def of_store(cls, reader: TargetReader, layer: TargetReader | None = None) -> TeacherDescription:
        """A teacher; with a layer of its store, what it adds, and its queries instead of the teacher's own.

        Raises Corrupt when a head is damaged.
        """
        spec, head, layer_head = reader.spec, _head_of(reader), {}
        arrays, stored = list(spec.teacher_outputs), list(spec.arrays)
        if layer is not None:
            own = {array.name for array in layer.spec.arrays}
            other_queries = any(array.role == QUERY for array in layer.spec.arrays)
            arrays, stored = (
                [a for a in known if a.name not in own and not (other_queries and a.role == QUERY)]
                + list(layer.spec.arrays)
                for known in (arrays, stored)
            )
            if layer.spec.layer.reads is not None:
                layer_head = _head_of(layer)
                head = {key: values for key, values in head.items() if not of_queries(key)} | layer_head
        return cls(
            name=str(reader.path if layer is None else layer.path),
            profile=spec.profile,
            specs={array.name: _output_spec(array) for array in arrays},
            stored=frozenset(array.name for array in stored),
            image_scale=spec.inputs.pipeline["scale"],
            image_fit=_fit(spec.inputs.pipeline),
            head=head,
            layer_head=layer_head,
        )

    @classmethod
    def of_detector(cls, detector: Detector, config: Config) -> TeacherDescription:
        """A teacher that is there itself."""
        specs = {spec.name: spec for spec in detector.output_specs(tuple(config.inputs.pad_hw))}
        return cls(
            name=str(config.filename or "the teacher"),
            profile="exact",
            specs=specs,
            stored=frozenset(specs) | set(DETECTION_ARRAYS),
            image_scale=config.inputs.scale,
            image_fit=_fit(config.inputs),
            head={key: value.detach().cpu() for key, value in detector.head_weights().items()},
        )

    def with_role(self, role: str) -> list[OutputSpec]:
        """The outputs that have a role, in the teacher's order."""
        return with_role(tuple(self.specs.values()), role)

    @property
    def start(self) -> TeacherHead:
        """What a student's head may start from."""
        return TeacherHead(weights=self.head, specs=tuple(self.specs.values()), image_scale=self.image_scale)


def _fit(pipeline: Mapping[str, object]) -> tuple[int, ...] | None:
    fit = pipeline.get("fit")
    return None if fit is None else tuple(fit)


def _head_of(reader: TargetReader) -> dict[str, Tensor]:
    try:
        return {name: torch.from_numpy(values) for name, values in reader.read_teacher_head().items()}
    except StoreNotFound:
        return {}


def _output_spec(array: ArraySpec) -> OutputSpec:
    return OutputSpec(
        name=array.name,
        role=array.role,
        shape=array.shape,
        dimension_names=array.dimension_names,
        dtype=array.dtype,
        stride=array.stride,
        extent_m=array.extent_m,
        frame=array.frame,
    )
