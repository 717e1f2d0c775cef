"""Pictures one after the other, prepared for a detector and not distorted: extraction and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from camera3d.data.coco.index import CocoFrame, CocoIndex
from camera3d.data.images import ImagePipeline, read_images
from camera3d.errors import ImagesBroken

# Of a picture that is padded: its size in its file, and that in the network's input.
SIZES = ("image_hw", "valid_hw")


class CocoItem(TypedDict):
    """One picture, as `encode` of a detector takes it once a batch dimension is added."""

    sample_token: str
    scene_token: str
    timestamp_us: int
    images: Tensor  # (1, 3, H, W) float32
    image_hw: Tensor  # (2,) int64: height and width of the picture in its file
    valid_hw: Tensor  # (2,) int64: height and width of the picture in `images`; the rest is padding
    has_prev: bool


class CocoFrames(Dataset):
    """All pictures of an index in order. For a part of a split pass `index.select(...)`."""

    def __init__(self, index: CocoIndex, pipeline: ImagePipeline, dataroot: str | Path):
        self.index, self.pipeline, self.dataroot = index, pipeline, Path(dataroot)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row: int) -> CocoItem:
        """Picture `row`. Raises IndexError past the end, and what `load_picture` raises."""
        frame = self.index[row]
        return {
            "sample_token": frame.sample_token,
            "scene_token": frame.scene_token,
            "timestamp_us": frame.timestamp_us,
            **load_picture(frame, self.pipeline, self.dataroot),
            "has_prev": False,
        }


def load_picture(
    frame: CocoFrame, pipeline: ImagePipeline, dataroot: str | Path, rng: np.random.Generator | None = None
) -> dict[str, Tensor]:
    """`images`, `image_hw` and `valid_hw` of a CocoItem; distorted when there is a generator.

    Raises ImagesBroken for a file that cannot be read, or has another size than the annotations say.
    """
    (picture,) = read_images(frame.image_paths, dataroot, any_colour=True)
    if picture.shape[:2] != frame.image_hw:
        found, said = ("×".join(map(str, hw)) for hw in (picture.shape[:2], frame.image_hw))
        why = f"{found} pixels, and its annotations say {said}"
        raise ImagesBroken(
            f"{Path(dataroot) / frame.image_paths[0]} has {why}: its boxes cannot be placed. Give the picture"
            " that was annotated.",
            [(frame.image_paths[0], why)],
        )
    return {
        "images": torch.from_numpy(pipeline.pictures([picture], rng)),
        "image_hw": torch.tensor(frame.image_hw),
        "valid_hw": torch.tensor(pipeline.size_after_scaling(frame.image_hw)),
    }
