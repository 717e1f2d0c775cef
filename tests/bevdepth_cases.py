"""The shrunk BEVDepth of the golden arrays, its weights and its frames."""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
import torch
from detector_cases import GOLDEN, ROOT
from mmengine.config import Config
from torch import Tensor, nn

from camera3d.checkpoint import load_official
from camera3d.detectors import Detector, build_detector

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
# An image pipeline for the small pictures of the tests' nuScenes.
CUT = {
    "scale": 0.5,
    "pad_hw": (32, 80),
    "mean": MEAN,
    "std": STD,
    "to_rgb": False,
    "resize": "pillow_keep_bottom",
}
KEPT = ("voxel_size", "voxel_coord", "voxel_num", "frustum", "num_batches_tracked")
# What brings the camera numbers to the same scale.
CAMERA_VARIANCE = (1e6, 1e6, 1e6, 1e6, 1, 1, 1e4, 1, 1, 1e4, *(1,) * 17)
GAINS = {
    "depth_conv.5.weight": 10,
    "conv_offset.weight": 4,
    "depth_mlp.fc2.weight": 3,
    "context_mlp.fc2.weight": 3,
}
KINDS = {
    "one": {},
    "two": {"key_frames": 2, "criterion": {"velocity_weight": 1.0}},
    "aggregated": {"depth_aggregation": True},
}


def entry(key: str, like: Tensor) -> Tensor:
    """The weight of that key in the shape of `like`; buffers of the grid keep their value."""
    if key.rsplit(".", 1)[-1] in KEPT:
        return like.clone()
    seed = zlib.crc32(key.encode()) & 0x7FFFFFFF
    noise = np.asarray(np.random.RandomState(seed).standard_normal(tuple(like.shape)), dtype=np.float32)
    fan = np.sqrt(np.prod(noise.shape[1:]))
    if key.endswith("depth_net.bn.running_var"):
        value = np.array(CAMERA_VARIANCE) * (1 + 0.1 * np.abs(noise))
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(noise)
    elif key.endswith("running_mean"):
        value = 0.1 * noise
    elif key.endswith("heatmap.1.bias"):
        value = noise - 2
    elif "depth_aggregation_net.out_conv" in key:
        value = 0.01 * noise if key.endswith("bias") else noise * 0.05 / fan
    elif noise.ndim == 1:
        value = 1 + 0.1 * noise if key.endswith("weight") else 0.1 * noise
    else:
        gain = next((g for end, g in GAINS.items() if key.endswith(end)), 1)
        if key.startswith("head.task_heads.") and key.endswith(".1.weight"):
            gain = 3
        value = noise * gain / fan
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def state_dict(detector: nn.Module) -> dict[str, Tensor]:
    """A whole state dict by the formula."""
    return {key: entry(key, value) for key, value in detector.state_dict().items()}


def shrunk_config(**changes: object) -> Config:
    """Everything of a quarter of the width, 28 depth bins, 32×32 cells, 128×352 images.

    The golden frames give poses in the ego frame of each camera.
    """
    config = Config.fromfile(ROOT / "configs/student/bevdepth_r50.py")
    config.model.img_backbone.base_channels = 16
    config.model.update(
        image_hw=(128, 352),
        neck_channels=16,
        depth_channels=64,
        context_channels=16,
        depth_bins_m=(2.0, 58.0, 2.0),
        voxel_size_m=(3.2, 3.2, 8.0),
        trunk_channels=32,
        bev_neck_channels=16,
        decode_rule={"max_cells": 400},
        ego_frame="camera",
    )
    config.model.update(changes)
    config.inputs.update(scale=0.22, pad_hw=(128, 352))
    return config


@cache
def shrunk_detector(kind: str = "one") -> Detector:
    """With the weights of the formula, in eval mode; `kind` of KINDS. Shared: do not train it."""
    with torch.inference_mode(False):
        detector = build_detector(shrunk_config(**KINDS[kind]))
        load_official(detector, state_dict(detector))
    return detector


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of `bevdepth-<name>.npz`."""
    with np.load(GOLDEN / f"bevdepth-{name}.npz") as file:
        return dict(file)


def normalised(images_bgr_u8: np.ndarray) -> Tensor:
    """(N, 3, H, W), blue first with red's statistics."""
    images = torch.from_numpy(images_bgr_u8).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(numbers)[None, :, None, None] for numbers in (MEAN, STD))
    return (images - mean) / std


def frame_inputs(frame: str) -> dict[str, Tensor]:
    """A frame of the golden arrays as a batch of one; of `t` the key frame, of `t.1` the earlier one.

    Earlier poses are given in the ego frame of the key frame, so every ego pose is the identity.
    """
    arrays = golden("tiny")
    scene, _, number = frame.partition(".")
    row = int(number or 0) if scene == "t" else slice(None)
    images = {"t": "f0", "t.1": "t.1"}.get(frame, frame)
    matrices = {name: torch.from_numpy(arrays[f"{scene}.{key}"])[row] for name, key in MATRICES.items()}
    return {
        "images": normalised(arrays[f"{images}.images_bgr_u8"])[None],
        **{name: values[None].double() for name, values in matrices.items()},
        "bev_transform": torch.from_numpy(arrays[f"{scene}.bda"])[None].double(),
        "lidar2ego": torch.eye(4, dtype=torch.float64)[None],
        "cam_ego2global": torch.eye(4, dtype=torch.float64).expand(1, 6, 4, 4),
    }


MATRICES = {"cam2ego": "sensor2ego", "intrinsics": "intrin", "image_transform": "ida"}
