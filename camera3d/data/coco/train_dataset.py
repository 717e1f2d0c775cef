"""The training samples of a COCO-format dataset: single pictures with their 2D boxes.

They look like queues of one frame, so that what trains on queues trains on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

from camera3d.data.coco.frames import load_picture
from camera3d.data.coco.index import CocoIndex
from camera3d.data.images import ImagePipeline
from camera3d.data.worker_errors import Failure, or_failure
from camera3d.errors import ConfigInvalid


class CocoTrainDataset(Dataset):
    """Pictures of an index, each as a queue of one.

    Nothing moves a pixel here, no flip and no crop: a store's maps and boxes are of the pictures as they are.

    Args:
        index: the split.
        pipeline: image preparation.
        dataroot: where the image paths start.
        distort: photometric distortion, drawn anew in each epoch.
        seed: with the epoch and the row it fixes every draw, whatever the number of workers.
        transforms: see NuScenesQueueDataset.
    """

    def __init__(
        self,
        index: CocoIndex,
        pipeline: ImagePipeline,
        dataroot: str | Path,
        *,
        distort: bool = False,
        seed: int = 0,
        transforms: Sequence[Callable[[dict[str, object]], dict[str, object]]] = (),
    ):
        self.index, self.pipeline, self.dataroot = index, pipeline, Path(dataroot)
        self.distort, self.seed, self.transforms = distort, seed, tuple(transforms)
        # Shared memory: workers that live through several epochs see the new number too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def annotated_rows(self) -> list[int]:
        """The pictures that have a box which is no crowd, as mmdet trains on them.

        Raises ConfigInvalid when there is none.
        """
        rows = [row for row in range(len(self)) if self.labels_of(row)]
        if not rows:
            raise ConfigInvalid(
                f"no picture of split {self.index.split!r} has a box of {', '.join(self.index.class_names)}."
                " Train on another split, or name other classes."
            )
        return rows

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: call before each epoch with its number."""
        self._epoch[0] = epoch

    def labels_of(self, row: int) -> set[int]:
        """The classes that a picture has boxes of, by their number in the index' `class_names`."""
        at = self.index.annotation_rows(row)
        columns = self.index.columns
        return set(columns["gt_labels"][at][~columns["crowd"][at]].tolist())

    def __getitem__(self, row: int) -> dict[str, object]:
        """Picture `row` as a queue of one.

        Returns images (1, 1, 3, H, W) float32, image_hw and valid_hw (1, 2) int64, has_prev (1,) bool, and
        `data_samples`: a Det3DDataSample whose `gt_instances` are in pixels of the picture.
        Raises ImagesBroken when the file cannot be read.
        """
        row = range(len(self))[row]
        rng = np.random.default_rng([self.seed, int(self._epoch[0]), row]) if self.distort else None
        loaded = load_picture(self.index.frame(row), self.pipeline, self.dataroot, rng)
        item: dict[str, object] = {name: value[None] for name, value in loaded.items()}
        item |= {"has_prev": torch.tensor([False]), "data_samples": self.data_sample(row)}
        for transform in self.transforms:
            item = transform(item)
        return item

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, object]] | Failure:
        """The items of a batch, as a DataLoader asks for them. In its worker, a Failure is returned."""
        return or_failure(lambda: [self[row] for row in rows])

    def data_sample(self, row: int) -> Det3DDataSample:
        """What is known about picture `row` and its boxes, without crowds; reads no image."""
        frame = self.index.frame(row)
        sample = Det3DDataSample(
            metainfo={
                "sample_token": frame.sample_token,
                "scene_token": frame.scene_token,
                "timestamp_us": frame.timestamp_us,
                "img_shape": self.pipeline.pad_hw,
                "class_names": frame.class_names,
            }
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(frame.gt_boxes[~frame.crowd].astype(np.float32)),
            labels=torch.from_numpy(frame.gt_labels[~frame.crowd]),
        )
        return sample
