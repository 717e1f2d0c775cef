"""The shrunk DETR3D of the golden arrays, and its frames."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from detector_cases import GOLDEN, ROOT, normalised
from golden.formula import state_dict
from mmengine.config import Config
from torch import Tensor

from camera3d.checkpoint import load_official
from camera3d.detectors import Detector, GroundTruth, build_detector


def shrunk_config(num_queries: int = 30) -> Config:
    """ResNet-50, 2 decoder layers, otherwise the teacher."""
    config = Config.fromfile(ROOT / "configs/teacher/detr3d_r101.py")
    config.model.img_backbone.depth = 50
    config.model.pts_bbox_head.update(decoder_layers=2, num_queries=num_queries)
    config.inputs.update(pad_hw=(96, 160))
    return config


@cache
def shrunk_detector(num_queries: int = 30) -> Detector:
    """With the weights of the formula, in eval mode. Shared: do not train it."""
    # The first caller may be in inference mode, and weights born there can never be trained.
    with torch.inference_mode(False):
        detector = build_detector(shrunk_config(num_queries))
        load_official(detector, state_dict(detector))
    return detector


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of `detr3d-<name>.npz`."""
    with np.load(GOLDEN / f"detr3d-{name}.npz") as file:
        return dict(file)


def frame_inputs(arrays: dict[str, np.ndarray], frame: str) -> dict[str, Tensor]:
    """`images`, padded at the bottom, and `lidar2img` of one golden frame, as a batch of one."""
    images = normalised(arrays[f"{frame}.images_bgr_u8"])
    height, width = arrays[f"{frame}.img_shape"][:2]
    images = F.pad(images, (0, width - images.shape[-1], 0, height - images.shape[-2]))
    return {"images": images[None], "lidar2img": torch.tensor(arrays[f"{frame}.lidar2img"])[None]}


def ground_truth(chosen: np.ndarray | slice = slice(None)) -> GroundTruth:
    """The real keyframe's boxes, or some of them."""
    arrays = golden("losses")
    return GroundTruth(
        torch.from_numpy(arrays["gt_boxes"][chosen]), torch.from_numpy(arrays["gt_labels"][chosen])
    )
