"""What the store of this dump will say about itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config

from cache_schema.array_spec import BEV_MAP, DENSE_HEAD, IMAGE_MAP, QUERY, ArraySpec
from cache_schema.detections import detection_arrays
from cache_schema.errors import CacheError, SpecInvalid
from cache_schema.spec import (
    DatasetFacts,
    InputFacts,
    NumericsFacts,
    OutputFacts,
    StoreSpec,
    TeacherFacts,
)
from camera3d.data import ImagePipeline, SplitIndex, inputs_present
from camera3d.detectors import Detector
from camera3d.detectors.builder import build_detector, load_config, plain_config
from camera3d.errors import Camera3DError, ConfigInvalid
from camera3d.files import sha256_of
from camera3d.ops import describe_backends
from camera3d.streaming import frame_specs
from extract.focal_areas import FocalOptions, covered_m

REGIMES = {
    "nuscenes": "streaming: scene by scene, undistorted images, each frame given its predecessor's state",
    "coco": "picture by picture, undistorted",
}
QUERY_BOXES = "query_boxes"
ARRAY_GROUPS = {"bev": (BEV_MAP,), "pv": (IMAGE_MAP,), "queries": (QUERY, DENSE_HEAD)}


@dataclass(frozen=True)
class TeacherWeights:
    """Where the teacher's weights come from: a checkpoint file, or a seed when it is untrained."""

    checkpoint: Path | None = None
    seed: int | None = None

    def checkpoint_sha256(self) -> str | None:
        """Digest of the checkpoint file, None for an untrained teacher."""
        if self.checkpoint is None:
            return None
        return sha256_of(self.checkpoint)


def teacher_arrays(
    detector: Detector, image_hw: tuple[int, int], groups: Sequence[str]
) -> tuple[list[ArraySpec], list[ArraySpec]]:
    """The arrays to store, and those that the teacher gives besides.

    Detections and what the frame itself says always come along.

    Args:
        groups: of ARRAY_GROUPS.

    Raises:
        ConfigInvalid: an unknown group, or none; or an output that no store could hold.
    """
    unknown = sorted(set(groups) - set(ARRAY_GROUPS))
    if unknown or not groups:
        raise ConfigInvalid(
            f"--arrays takes one or more of {', '.join(ARRAY_GROUPS)}; got {', '.join(groups) or 'nothing'}"
        )
    roles = {role for group in groups for role in ARRAY_GROUPS[group]}
    specs = detector.output_specs(image_hw)
    try:
        arrays = [ArraySpec.of_output(spec) for spec in specs]
    except SpecInvalid as error:
        raise ConfigInvalid(f"{type(detector).__name__}.output_specs: {error}") from error
    in_ego = [spec.name for spec in specs if spec.frame == "ego"]
    if in_ego and "lidar2ego" not in detector.inputs:
        raise ConfigInvalid(
            f"{type(detector).__name__}: {', '.join(in_ego)} in the ego frame, and lidar2ego is not among its"
            " inputs; boxes of the LiDAR frame could not be placed there"
        )
    stored = [array for array in arrays if array.role in roles]
    left = [array for array in arrays if array.role not in roles]
    frame = [ArraySpec.of_output(spec) for spec in frame_specs(detector.inputs)]
    return [*stored, *frame, *detection_arrays(detector.box_kind.numbers)], left


def require_teacher(config: Config) -> None:
    """Raise ConfigInvalid for the config of a distillation: its `model` is the student."""
    if config.get("distiller") is None:
        return
    named = config.get("teacher")
    teacher = named and os.path.normpath(Path(config.filename or "").parent / named)
    raise ConfigInvalid(
        f"config {config.filename} is for a distillation: its `model` is the student, and a store is made"
        f" by its teacher: give {teacher or 'its config'}"
    )


def planned_arrays(config: str | Path, groups: Sequence[str]) -> tuple[ArraySpec, ...]:
    """The arrays of a dump with that config, for a plan; no weight is drawn.

    Raises CacheError as the plan's reader expects it.
    """
    try:
        config = load_config(config)
        require_teacher(config)
        with torch.device("meta"):
            detector = build_detector(config)
        pipeline = ImagePipeline.from_config(config.inputs)
        stored, _ = teacher_arrays(detector, tuple(pipeline.pad_hw), groups)
    except Camera3DError as error:
        raise CacheError(str(error)) from error
    return tuple(stored)


def build_store_spec(
    *,
    detector: Detector,
    config: Config,
    pipeline: ImagePipeline,
    index: SplitIndex,
    weights: TeacherWeights,
    groups: Sequence[str],
    profile: str,
    focal: FocalOptions,
    device: torch.device,
    threads: int,
) -> StoreSpec:
    """Everything that holds for the whole store, before its first sample is written.

    Args:
        focal: what profile `focal` keeps; other profiles do not look at it.
    """
    arrays, not_stored = teacher_arrays(detector, pipeline.pad_hw, groups)
    encodes = any(array.name == QUERY_BOXES for array in (*arrays, *not_stored))
    return StoreSpec(
        profile=profile,
        arrays=tuple(arrays),
        teacher=TeacherFacts(
            detector=Path(config.filename or "detector").stem,
            config=plain_config(config.model),
            regime=REGIMES[index.dataset],
            trained=weights.checkpoint is not None,
            checkpoint_sha256=weights.checkpoint_sha256(),
            random_seed=weights.seed,
        ),
        inputs=InputFacts(
            camera_order=index.camera_names,
            image_shape=pipeline.pad_hw,
            pipeline=pipeline.to_dict(),
            present=inputs_present(detector.inputs, index),
        ),
        outputs=OutputFacts(
            class_names=detector.class_names,
            box_convention=detector.box_kind.convention,
            query_box_encoding=detector.box_kind.query_encoding if encodes else None,
            not_stored=tuple(not_stored),
        ),
        dataset=DatasetFacts(name=index.dataset, version=index.version, split=index.split),
        numerics=NumericsFacts(
            version=detector.numerics_version,
            op_backend=", ".join(f"{op}: {backend}" for op, backend in describe_backends(device).items()),
            device=device.type,
            compute_dtype="float32",
            tf32=False,
            deterministic=True,
            threads=threads,
        ),
        focal=focal.facts(covered_m((*arrays, *not_stored))) if profile == "focal" else None,
    )
