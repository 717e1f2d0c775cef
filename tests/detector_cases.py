"""What the tests of several detectors share: golden images, batches, ground truth, a copy to train."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
GOLDEN = Path(__file__).parent / "golden"
MEAN_BGR = (103.530, 116.280, 123.675)


def normalised(images_bgr_u8: np.ndarray) -> Tensor:
    """(N, 3, H, W) as the ResNet-101 detectors want it, of (N, H, W, 3) bytes."""
    images = torch.from_numpy(images_bgr_u8).permute(0, 3, 1, 2).float()
    return images - torch.tensor(MEAN_BGR)[None, :, None, None]


def stacked(*frames: dict[str, Tensor]) -> dict[str, Tensor]:
    """Several batches of one as one batch."""
    return {name: torch.cat([frame[name] for frame in frames]) for name in frames[0]}


def data_sample(boxes: Tensor, labels: Tensor) -> Det3DDataSample:
    """Ground truth as the data set hands it out; boxes (n, 9) in our convention."""
    sample = Det3DDataSample()
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9, origin=(0.5, 0.5, 0.5)), labels_3d=labels
    )
    return sample


def trainable_copy(detector: nn.Module) -> nn.Module:
    """A copy in training mode without dropout and grid mask, so that two passes agree."""
    detector = copy.deepcopy(detector)
    for module in detector.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    detector.grid_mask.prob = 0.0
    return detector.train()
