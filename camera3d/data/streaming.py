"""Frames one after the other, each with its motion since the frame before: extraction and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import Dataset

from camera3d.data.can_bus import relative_can_bus
from camera3d.data.images import ImagePipeline
from camera3d.data.index import NuScenesIndex
from camera3d.data.rig import frame_rig


class StreamingItem(TypedDict):
    """One frame, as `encode` of a detector takes it once a batch dimension is added."""

    sample_token: str
    scene_token: str
    timestamp_us: int
    images: Tensor  # (6, 3, H, W) float32
    lidar2img: Tensor  # (6, 4, 4) float64
    can_bus: Tensor  # (18,) float64, relative to the previous frame of the scene
    has_prev: bool
    image_transform: Tensor  # (6, 4, 4) float64, and the following: see camera3d.data.rig
    intrinsics: Tensor
    cam2ego: Tensor
    cam_ego2global: Tensor
    ego2global: Tensor  # (4, 4)
    lidar2ego: Tensor  # (4, 4)


class StreamingFrames(Dataset):
    """All frames of an index in order, undistorted. For a part of a split pass `index.select(...)`.

    In a DataLoader use `batch_size=None`: items then arrive as they are, in order, read ahead by the workers.
    """

    def __init__(self, index: NuScenesIndex, pipeline: ImagePipeline, dataroot: str | Path):
        self.index, self.pipeline, self.dataroot = index, pipeline, Path(dataroot)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> StreamingItem:
        """Frame `row`. Raises IndexError past the end, and what the pipeline raises."""
        frame = self.index[row]
        row %= len(self)
        first = row == self.index.scene_of_row(row).first
        previous = None if first else self.index.frame(row - 1)
        images, lidar2img = self.pipeline.load(frame, self.dataroot)
        return {
            "sample_token": frame.sample_token,
            "scene_token": frame.scene_token,
            "timestamp_us": frame.timestamp_us,
            "images": torch.from_numpy(images),
            "lidar2img": torch.from_numpy(lidar2img),
            "can_bus": torch.from_numpy(relative_can_bus(frame, previous)),
            "has_prev": previous is not None,
            **{name: torch.from_numpy(value) for name, value in frame_rig(frame, self.pipeline).items()},
        }
