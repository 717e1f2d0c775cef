"""What the store of this dump will say about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config

from cache_schema.spec import (
    ArraySpec,
    DatasetFacts,
    InputFacts,
    NumericsFacts,
    OutputFacts,
    StoreSpec,
    TeacherFacts,
)
from camera3d.boxes import BOX_CONVENTION
from camera3d.data import CAMERA_NAMES, ImagePipeline, NuScenesIndex
from camera3d.detectors import Detector
from camera3d.detectors.builder import plain_config
from camera3d.errors import ConfigInvalid
from camera3d.ops import describe_backends
from extract.focal_areas import FocalOptions

REGIME = "streaming: scene by scene, undistorted images, each frame given its predecessor's BEV"

# Metres and sampling positions keep float32: in half precision a centre 50 m away moves by up to 1.6 cm and a
# sampling position by a twentieth of a cell. They are under 2 % of a store's bytes.
FLOAT32_ARRAYS = ("query_boxes", "reference_points", "sampling_locations")
ARRAY_GROUPS = ("bev", "pv", "queries")


@dataclass(frozen=True)
class TeacherWeights:
    """Where the teacher's weights come from: a checkpoint file, or a seed when it is untrained."""

    checkpoint: Path | None = None
    seed: int | None = None

    def checkpoint_sha256(self) -> str | None:
        """Digest of the checkpoint file, None for an untrained teacher."""
        if self.checkpoint is None:
            return None
        with self.checkpoint.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def chosen_arrays(
    detector: Detector, image_hw: tuple[int, int], groups: Sequence[str] = ARRAY_GROUPS
) -> tuple[ArraySpec, ...]:
    """The arrays of the wanted groups, and the frame's `can_bus` and `lidar2img`, which always come along.

    Raises:
        ConfigInvalid: an unknown group, or none.
    """
    unknown = sorted(set(groups) - set(ARRAY_GROUPS))
    if unknown or not groups:
        raise ConfigInvalid(
            f"--arrays takes one or more of {', '.join(ARRAY_GROUPS)}; got {', '.join(groups) or 'nothing'}"
        )
    arrays = []
    for feature_map in detector.feature_maps(image_hw):
        name = feature_map.name
        group = {"pv_": "pv", "bev": "bev"}.get(name[:3], "queries")
        if group in groups:
            arrays.append(
                ArraySpec(
                    name=name,
                    dtype="float32" if name in FLOAT32_ARRAYS else "float16",
                    shape=feature_map.shape,
                    dimension_names=feature_map.dimension_names,
                    compressed=False,
                )
            )
    frame_arrays = (
        ("can_bus", (18,), ("can_bus_number",)),
        ("lidar2img", (detector.num_cameras, 4, 4), ("camera", "image_row", "lidar_column")),
    )
    for name, shape, dimension_names in frame_arrays:
        arrays.append(
            ArraySpec(
                name=name, dtype="float64", shape=shape, dimension_names=dimension_names, compressed=False
            )
        )
    return tuple(arrays)


def build_store_spec(
    *,
    detector: Detector,
    config: Config,
    pipeline: ImagePipeline,
    index: NuScenesIndex,
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
    strides = [m.stride for m in detector.feature_maps(pipeline.pad_hw) if m.stride is not None]
    return StoreSpec(
        profile=profile,
        arrays=chosen_arrays(detector, pipeline.pad_hw, groups),
        teacher=TeacherFacts(
            detector=Path(config.filename or "detector").stem,
            config=plain_config(config.model),
            regime=REGIME,
            trained=weights.checkpoint is not None,
            checkpoint_sha256=weights.checkpoint_sha256(),
            random_seed=weights.seed,
        ),
        inputs=InputFacts(
            camera_order=CAMERA_NAMES, image_shape=pipeline.pad_hw, pipeline=pipeline.to_dict()
        ),
        outputs=OutputFacts(
            class_names=detector.class_names, box_convention=BOX_CONVENTION, pv_strides=tuple(strides)
        ),
        dataset=DatasetFacts(name="nuscenes", version=index.version, split=index.split),
        numerics=NumericsFacts(
            version=detector.numerics_version,
            op_backend=", ".join(f"{op}: {backend}" for op, backend in describe_backends(device).items()),
            device=device.type,
            compute_dtype="float32",
            tf32=False,
            deterministic=True,
            threads=threads,
        ),
        focal=focal.facts(config.model.point_cloud_range) if profile == "focal" else None,
    )
