"""Whether a detector can be shown augmented samples: it must read where everything has moved."""

from __future__ import annotations

from mmengine.config import Config
from torch import nn

from camera3d.data.augmentation import Augmentation
from camera3d.data.queue_dataset import BEV_TRANSFORM
from camera3d.data.rig import RIG_NAMES
from camera3d.detectors import Detector
from camera3d.detectors.protocol import BEV_MAP, with_role
from camera3d.errors import ConfigInvalid, shown

# What says where a pixel of the camera's picture has gone.
OF_IMAGES = ("lidar2img", "image_transform")
# What ties the LiDAR frame to other frames, or tells of its motion, and so cannot follow when it moves.
OF_THE_WORLD = ("can_bus", *(name for name in RIG_NAMES if name not in ("image_transform", "intrinsics")))


def inputs_of(model: nn.Module) -> tuple[str, ...]:
    """What a detector, or the student of a distiller, reads of a frame in training."""
    student = getattr(model, "student", model)
    # A detector of somebody's own may know only what the seam had first.
    return (*student.inputs, *getattr(student, "training_inputs", ()))


def require_augmentable(config: Config, detector: Detector) -> None:
    """Raise ConfigInvalid unless the detector reads all that a config's augmentation moves."""
    augmentation = Augmentation.from_config(config)
    if augmentation is None:
        return
    name, read = type(detector).__name__, inputs_of(detector)
    faults = []
    if augmentation.image is not None and not set(OF_IMAGES) & set(read):
        faults.append(
            f"augmentation.image: {name} reads none of {', '.join(OF_IMAGES)}: it cannot know where pixels"
            " went"
        )
    if augmentation.bev is not None:
        fault = _bev_fault(name, read, detector.output_specs(tuple(config.inputs.pad_hw)))
        faults += [f"augmentation.bev: {fault}"] if fault else []
    if faults:
        raise ConfigInvalid(
            f"the augmentation of {config.filename or 'the config'} cannot be:\n{shown(faults)}\n"
            "Leave it out: augmentation.image=None, augmentation.bev=None."
        )


def _bev_fault(name: str, read: tuple[str, ...], specs: tuple) -> str | None:
    frames = {spec.frame for spec in with_role(specs, BEV_MAP)}
    if BEV_TRANSFORM in read:
        if frames == {"ego"}:
            return None
        return f"{name} reads {BEV_TRANSFORM}, and its BEV maps do not all lie in the ego frame"
    still = [one for one in OF_THE_WORLD if one in read]
    if still:
        return f"{name} reads {', '.join(still)}, which would stay as it is where the LiDAR frame moves"
    if "lidar2img" not in read:
        return f"{name} does not read lidar2img and cannot know where the ground went"
    return None


def require_same_moves(config: Config, student: Detector, teacher: Detector) -> None:
    """Raise ConfigInvalid unless a teacher can be shown the student's augmented samples."""
    require_augmentable(config, teacher)
    augmentation = Augmentation.from_config(config)
    through_ego = {BEV_TRANSFORM in inputs_of(detector) for detector in (student, teacher)}
    if augmentation is not None and augmentation.bev is not None and len(through_ego) > 1:
        raise ConfigInvalid(
            f"augmentation.bev moves the ego frame of a detector that reads {BEV_TRANSFORM} and the LiDAR"
            " frame of others: of student and teacher one reads it. Take a cache, or --teacher-source live."
        )
