"""Datasets and loaders of a training: queues or streams with ground truth, and frames to evaluate on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_rank, get_world_size, is_main_process
from torch.utils.data import DataLoader, Dataset, Sampler

from camera3d.data import (
    ImagePipeline,
    NuScenesQueueDataset,
    NuScenesSegmentDataset,
    SplitIndex,
    check_images,
    collate_queue,
    streaming_frames,
)
from camera3d.data.augmentation import Augmentation
from camera3d.data.coco.train_dataset import CocoTrainDataset
from camera3d.data.datasets import COCO
from camera3d.data.lidar_depth import LIDAR_DEPTH
from camera3d.data.queue_dataset import INPUT_NAMES
from camera3d.data.shared_memory import PREFETCHED, RoomForBatches
from camera3d.data.worker_errors import TellingLoader
from camera3d.errors import ConfigInvalid, ImagesBroken
from train.engine.sampler import ResumableSampler, class_balanced_rows
from train.engine.segments import SegmentOptions, SegmentSampler


def train_loader(
    config: Config,
    index: SplitIndex,
    dataroot: str | Path,
    *,
    batch_size: int,
    workers: int,
    seed: int,
    inputs: Sequence[str] = (),
    transforms: Sequence[Callable] = (),
) -> DataLoader:
    """Shuffled queues, see NuScenesQueueDataset and ResumableSampler; or streams, see SegmentSampler.

    Of a COCO-format dataset: shuffled pictures that have a box, see CocoTrainDataset.
    `history` of the config says which. `class_balanced` shows every class in equally many frames, see
    `class_balanced_rows`. `ground_truth_range` is where boxes count, in the LiDAR frame; without it the
    detector's `point_cloud_range` is. `lidar_depth` False reads no sweeps.

    Args:
        inputs: what the detector reads of a frame.
    """
    pipeline = ImagePipeline.from_config(config.inputs)
    pipeline.require_fit(*index.image_sizes)
    segments = SegmentOptions.from_config(config)
    place = {"seed": seed, "rank": get_rank(), "world": get_world_size()}
    if index.dataset == COCO:
        if segments is not None:
            raise ConfigInvalid("history='stream': pictures have no history. Leave it out of the config.")
        dataset = CocoTrainDataset(
            index,
            pipeline,
            dataroot,
            distort=config.get("distort", True),
            seed=seed,
            transforms=transforms,
        )
        sampler = ResumableSampler(_rows(config, dataset, dataset.annotated_rows, seed), **place)
        return loader_of(dataset, sampler, collate_queue, batch_size=batch_size, workers=workers)
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
        sampler = ResumableSampler(_rows(config, dataset, range(len(dataset)), seed), **place)
    return loader_of(dataset, sampler, collate_queue, batch_size=batch_size, workers=workers)


def _rows(config: Config, dataset: Dataset, rows: Sequence[int], seed: int) -> Sequence[int]:
    """Those that an epoch shows: each once, or as `class_balanced` of the config wants it."""
    if not config.get("class_balanced", False):
        return rows
    labels = [dataset.labels_of(row) for row in rows]
    chosen = class_balanced_rows(labels, len(config.model.class_names), seed=seed)
    return [rows[number] for number in chosen]


def loader_of(
    dataset: Dataset, sampler: Sampler, collate: Callable, *, batch_size: int, workers: int
) -> DataLoader:
    """Batches of a training, read by `workers` processes. A failure in one of them is told in words."""
    return TellingLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=RoomForBatches(collate),
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=torch.cuda.is_available(),
        # The reader's checksums and open files live as long as its worker.
        persistent_workers=workers > 0,
        worker_init_fn=_one_thread,
    )


def require_images(dataroot: str | Path, *parts: SplitIndex | None) -> None:
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


def val_loader(config: Config, index: SplitIndex, dataroot: str | Path) -> DataLoader:
    """Only carries the frames to EvaluationLoop, which streams them scene by scene."""
    frames = streaming_frames(index, ImagePipeline.from_config(config.inputs), dataroot)
    return DataLoader(frames, batch_size=None)


def _one_thread(worker: int) -> None:
    # Workers share the cores with the training and with each other.
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
