"""The shrunk BEVFormer-Small of the golden arrays, and its frames."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from detector_cases import GOLDEN, ROOT, normalised
from golden.formula import state_dict
from mmengine.config import Config
from torch import Tensor

from camera3d.checkpoint import load_official
from camera3d.detectors import Detector, build_detector


def shrunk_config(num_queries: int = 30) -> Config:
    """ResNet-50, 12×12 BEV, 2 + 2 layers."""
    config = Config.fromfile(ROOT / "configs/student/bevformer_small.py")
    config.model.img_backbone.depth = 50
    config.model.pts_bbox_head.update(
        bev_hw=(12, 12), encoder_layers=2, decoder_layers=2, num_queries=num_queries
    )
    # The golden detections stop at one box a query.
    config.model.max_detections = num_queries
    config.inputs.update(scale=1.0, pad_hw=(96, 160))
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
    """The arrays of a golden file."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def frame_inputs(arrays: dict[str, np.ndarray], frame: int) -> dict[str, Tensor]:
    """`images`, `lidar2img` and `can_bus` of one golden frame, as a batch of one."""
    return {
        "images": normalised(arrays[f"f{frame}.images_bgr_u8"])[None],
        # Copies: a test that changes its inputs must not change the golden arrays of the next one.
        "lidar2img": torch.tensor(arrays[f"f{frame}.lidar2img"])[None],
        "can_bus": torch.tensor(arrays[f"f{frame}.can_bus"])[None],
    }
