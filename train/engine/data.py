"""Datasets and loaders of a training: queues or streams with ground truth, and frames to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_rank, get_world_size, is_main_process
from torch.utils.data import DataLoader

from camera3d.data import (
    ImagePipeline,
    NuScenesIndex,
    NuScenesQueueDataset,
    NuScenesSegmentDataset,
    StreamingFrames,
    check_images,
    collate_queue,
)
from camera3d.data.augmentation import Augmentation
from camera3d.data.lidar_depth import LIDAR_DEPTH
from camera3d.data.queue_dataset import INPUT_NAMES
from camera3d.data.shared_memory import PREFETCHED, RoomForBatches
from camera3d.data.splits import fitting_splits
from camera3d.data.worker_errors import TellingLoader
from camera3d.errors import ImagesBroken, SplitMismatch
from train.engine.sampler import ResumableSampler, class_balanced_rows
from train.engine.segments import SegmentOptions, SegmentSampler


def default_splits(dataroot: str | Path, version: str) -> tuple[str, str]:
    """The splits of a version that are meant for training and for validation.

    Raises SplitMismatch when it has no such pair, so that they must be named.
    """
    splits = fitting_splits(dataroot, version)
    pair = tuple(next((s for s in splits if s.endswith(end)), None) for end in ("train", "val"))
    if None in pair:
        raise SplitMismatch(
            f"{version} has no pair of splits that end with train and val, but"
            f" {', '.join(splits) or 'none'}. Name them with --split and --val-split."
        )
    return pair


def train_loader(
    config: Config,
    index: NuScenesIndex,
    dataroot: str | Path,
    *,
    batch_size: int,
    workers: int,
    seed: int,
    inputs: Sequence[str] = (),
    transforms: Sequence[Callable] = (),
) -> DataLoader:
    """Shuffled queues, see NuScenesQueueDataset and ResumableSampler; or streams, see SegmentSampler.

    `history` of the config says which. `class_balanced` shows every class in equally many frames, see
    `class_balanced_rows`. `ground_truth_range` is where boxes count, in the LiDAR frame; without it the
    detector's `point_cloud_range` is. `lidar_depth` False reads no sweeps.

    Args:
        inputs: what the detector reads of a frame.
    """
    pipeline = ImagePipeline.from_config(config.inputs)
    pipeline.require_fit(*index.image_sizes)
    segments = SegmentOptions.from_config(config)
    left_out = set(INPUT_NAMES) | (set() if config.get("lidar_depth", True) else {LIDAR_DEPTH})
    shared = {
        "point_cloud_range": config.get("ground_truth_range") or config.model.point_cloud_range,
        "class_names": config.model.class_names,
        "distort": config.get("distort", True),
        "extra_inputs": [name for name in inputs if name not in left_out],
        "augmentation": Augmentation.from_config(config),
        "unknown_velocity": config.get("unknown_velocity", "zero"),
        "seed": seed,
        "transforms": transforms,
    }
    place = {"seed": seed, "rank": get_rank(), "world": get_world_size()}
    if segments is not None:
        dataset = NuScenesSegmentDataset(index, pipeline, dataroot, **shared)
        sampler = SegmentSampler(index, segments, batch_size=batch_size, **place)
    else:
        dataset = NuScenesQueueDataset(
            index,
            pipeline,
            dataroot,
            queue_length=config.get("queue_length", 4),
            drop_history_frame=config.get("drop_history_frame", True),
            **shared,
        )
        rows: Sequence[int] = range(len(dataset))
        if config.get("class_balanced", False):
            labels = [dataset.labels_of(row) for row in rows]
            rows = class_balanced_rows(labels, len(config.model.class_names), seed=seed)
        sampler = ResumableSampler(rows, **place)
    return TellingLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=RoomForBatches(collate_queue),
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=torch.cuda.is_available(),
        # The reader's checksums and open files live as long as its worker.
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
    )


def require_images(dataroot: str | Path, *parts: NuScenesIndex | None) -> None:
    """Decode every image of these frames once; the first process does it for all.

    Raises ImagesBroken in every process.
    """
    outcome: list[ImagesBroken | None] = [None]
    if is_main_process():
        frames = chain.from_iterable(index.frames() for index in parts if index is not None)
        try:
            check_images(dataroot, frames, decode=True)
        except ImagesBroken as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if outcome[0] is not None:
        outcome[0].on_every_rank = True
        raise outcome[0]


def val_loader(config: Config, index: NuScenesIndex, dataroot: str | Path) -> DataLoader:
    """Only carries the frames to NuScenesValLoop, which streams them scene by scene."""
    frames = StreamingFrames(index, ImagePipeline.from_config(config.inputs), dataroot)
    return DataLoader(frames, batch_size=None)


def _one_thread(worker: int) -> None:
    # Workers share the cores with the training and with each other.
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
