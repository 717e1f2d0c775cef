"""The training samples of a distillation head: stored maps and ground truth. No image is read.

Shapes: T = 1 frame, C channels, H W cells of the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache_schema.array_spec import ArraySpec
from cache_schema.reader import TargetReader
from camera3d.data import ImagePipeline, NuScenesIndex, NuScenesQueueDataset
from camera3d.data.worker_errors import Failure, or_failure
from train.engine.data import loader_of
from train.engine.sampler import ResumableSampler
from train.targets.layout import TargetLayout, stored_names
from train.targets.teacher_targets import TeacherTargets

# Boxes beside the map may lie on it in its own frame, which is some metres away from the LiDAR's and turned.
BESIDE_M = 5.0


class StoredFrames:
    """What a head reads of a sample, by the arrays' names: (1, …) each, maps as floats.

    Pickles as its arguments; every data worker opens the store for itself.

    Args:
        names: of a BEV map, and of arrays that say something about the frame.
    """

    def __init__(self, reader: TargetReader, names: Sequence[str]) -> None:
        self.reader, self.names = reader, tuple(names)
        self.stored = stored_names(reader.spec, names)
        self.layout = TargetLayout.of_store(reader.spec)
        self.maps = {array.name for array in reader.spec.arrays if array.is_map}

    def __call__(self, sample_token: str) -> dict[str, Tensor]:
        """Raises SampleMissing or Corrupt with the sample's token."""
        arrays = self.reader.read(sample_token, self.stored)
        arrays = {name: torch.from_numpy(values) for name, values in arrays.items()}
        unpacked = TeacherTargets([arrays], self.layout)
        return {name: unpacked.map(name) if name in self.maps else arrays[name][None] for name in self.names}


class StoredMaps(Dataset):
    """Items of `data_samples` and the arrays that a head reads, with one frame each.

    Args:
        truth: for the ground truth of its frames; its images are left alone.
    """

    def __init__(self, frames: StoredFrames, truth: NuScenesQueueDataset) -> None:
        self.frames, self.truth = frames, truth

    def __len__(self) -> int:
        return len(self.truth)

    def set_epoch(self, epoch: int) -> None:
        """Nothing is drawn."""

    def __getitem__(self, row: int) -> dict[str, object]:
        """Raises as StoredFrames."""
        sample = self.truth.data_sample(row)
        return {"data_samples": sample, **self.frames(sample.sample_token)}

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, object]] | Failure:
        """See NuScenesQueueDataset."""
        return or_failure(lambda: [self[row] for row in rows])


def stored_map_loader(
    reader: TargetReader,
    bev_map: ArraySpec,
    config: Config,
    index: NuScenesIndex,
    dataroot: str,
    *,
    batch_size: int,
    workers: int,
    seed: int,
    inputs: Sequence[str],
    **unused: object,
) -> DataLoader:
    """All frames of an index, shuffled, see ResumableSampler.

    Args:
        inputs: names of the arrays that the head reads.
    """
    truth = NuScenesQueueDataset(
        index,
        ImagePipeline.from_config(config.inputs),
        dataroot,
        point_cloud_range=around(bev_map),
        class_names=reader.spec.outputs.class_names,
        queue_length=1,
        filter_empty_gt=False,
        unknown_velocity=config.get("unknown_velocity", "zero"),
    )
    sampler = ResumableSampler(range(len(truth)), seed=seed, rank=get_rank(), world=get_world_size())
    frames = StoredMaps(StoredFrames(reader, inputs), truth)
    return loader_of(frames, sampler, collate, batch_size=batch_size, workers=workers)


def around(bev_map: ArraySpec) -> tuple[float, ...]:
    """A range of the LiDAR frame that holds the whole map, whichever frame that is in and however turned."""
    low_x, low_y, low_z, high_x, high_y, high_z = bev_map.extent_m
    reach = math.hypot(max(-low_x, high_x), max(-low_y, high_y)) + BESIDE_M
    return (-reach, -reach, low_z, reach, reach, high_z)


def collate(batch: Sequence[Mapping[str, object]] | Failure) -> dict[str, object] | Failure:
    """Items to one batch; a failure to read them goes on as it is."""
    if isinstance(batch, Failure):
        return batch
    names = [name for name in batch[0] if name != "data_samples"]
    inputs = {name: torch.stack([item[name] for item in batch]) for name in names}
    return {"inputs": inputs, "data_samples": [item["data_samples"] for item in batch]}
