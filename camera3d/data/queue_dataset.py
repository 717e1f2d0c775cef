"""The training samples: a short queue of frames and the ground truth of the last one.

Shapes: T frames of a queue (oldest first), B batch, 6 cameras, H W padded height and width.
Source: nuscenes_dataset.py (prepare_train_data, union2one) of Li et al., ECCV 2022; ObjectRangeFilter of
mmdet3d.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from torch import Tensor
from torch.utils.data import Dataset

from camera3d.boxes import move_boxes
from camera3d.data.augmentation import Augmentation, Drawn, ImageDraw, Moves
from camera3d.data.can_bus import relative_can_bus
from camera3d.data.coco.frames import SIZES
from camera3d.data.images import ImagePipeline
from camera3d.data.index import Frame, NuScenesIndex
from camera3d.data.lidar_depth import LIDAR_DEPTH, lidar_depth
from camera3d.data.rig import RIG_NAMES, frame_rig
from camera3d.data.worker_errors import Failure, or_failure
from camera3d.errors import ConfigInvalid

MAX_REDRAWS = 10_000
INPUT_NAMES = ("images", "lidar2img", "can_bus", "has_prev")
# The frame of the BEV map against the ego frame: what augmentation moves a detector that reads it by.
BEV_TRANSFORM = "bev_transform"
# What detectors may ask for besides.
EXTRA_INPUT_NAMES = (*RIG_NAMES, BEV_TRANSFORM, LIDAR_DEPTH)
# What an item of an augmented sample holds besides: see Moves.
MOVES = "moves"
UNKNOWN_VELOCITIES = ("zero", "nan")


class NuScenesQueueDataset(Dataset):
    """Random temporal queues over an index.

    A queue that ends at frame i takes the `queue_length` frames before it, drops one of them at random and
    keeps the order: `queue_length` frames in all. Without `drop_history_frame` it takes the frames right
    before, as a detector meets them on the road. Rows count through the whole index as in the official code:
    rows below 0 become row 0, and a frame whose predecessor in the queue is of another scene starts anew
    (`has_prev` false, no motion).

    Augmentation moves all frames of an item alike, and all that goes with them: images, matrices, the LiDAR's
    depth, ground truth. On the ground it moves the ego frame for a detector that reads `bev_transform`:
    `lidar2ego` then leads to the moved frame, and what is given in the LiDAR frame stays. For any other it
    moves the LiDAR frame itself, with `lidar2img` and the boxes. `moves` of an item says by what.

    Args:
        index: the split; no devkit behind it.
        pipeline: image preparation.
        dataroot: where the image paths start.
        point_cloud_range: x, y, z minimum then maximum in metres; ground truth is kept when the BEV centre
            of its box lies strictly inside x and y.
        class_names: the classes to keep, in label order; all of the index by default.
        queue_length: frames in a queue, ≥ 1.
        drop_history_frame: the official augmentation. In a queue of 2 it leaves open whether the one frame of
            history is half a second or a second old, and with it how fast things move.
        distort: photometric distortion, drawn anew for each image of each frame.
        filter_empty_gt: replace a queue with a frame without ground truth by a random other one.
        extra_inputs: of EXTRA_INPUT_NAMES, what items hold besides; `lidar_depth` reads LIDAR_TOP's sweeps.
        augmentation: what a sample is moved by; None: nothing is.
        unknown_velocity: what stands for a velocity that cannot be estimated: `zero`, as in most official
            trainings, or `nan`, for losses that leave it out.
        seed: with the epoch and the row it fixes every draw, whatever the number of workers.
        transforms: applied to every item in turn, in the data worker; what they add under other names than an
            item's own is collated into `extras`.

    Raises ConfigInvalid for values that cannot work, or when no queue with ground truth can be had.
    """

    def __init__(
        self,
        index: NuScenesIndex,
        pipeline: ImagePipeline,
        dataroot: str | Path,
        *,
        point_cloud_range: Sequence[float],
        class_names: Sequence[str] | None = None,
        queue_length: int = 4,
        drop_history_frame: bool = True,
        distort: bool = True,
        filter_empty_gt: bool = True,
        extra_inputs: Sequence[str] = (),
        augmentation: Augmentation | None = None,
        unknown_velocity: str = "zero",
        seed: int = 0,
        transforms: Sequence[Callable[[dict[str, object]], dict[str, object]]] = (),
    ):
        self.index, self.pipeline, self.dataroot = index, pipeline, Path(dataroot)
        self.transforms = tuple(transforms)
        self.point_cloud_range = tuple(float(edge) for edge in point_cloud_range)
        self.class_names = tuple(class_names) if class_names is not None else index.class_names
        self.queue_length, self.distort, self.seed = queue_length, distort, seed
        self.drop_history_frame, self.filter_empty_gt = drop_history_frame, filter_empty_gt
        self.extra_inputs, self.unknown_velocity = tuple(extra_inputs), unknown_velocity
        self.augmentation = augmentation
        self._check_options()
        # Shared memory: workers that live through several epochs see the new number too.
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._label_map = np.array(
            [self.class_names.index(n) if n in self.class_names else -1 for n in index.class_names],
            dtype=np.int64,
        )
        columns = index.columns
        self._kept = self._keep(columns["gt_boxes"], columns["gt_labels"], columns["valid"])
        owner = np.repeat(np.arange(len(index)), columns["annotation_count"])
        self._has_gt = np.bincount(owner[self._kept], minlength=len(index)) > 0
        if filter_empty_gt and not self._has_gt.any():
            raise ConfigInvalid(
                f"no frame of split {index.split!r} of {index.version} has ground truth inside"
                f" {self.point_cloud_range}. Widen point_cloud_range, name other classes, or set"
                " filter_empty_gt=False (the test split has no annotations)."
            )

    def __len__(self) -> int:
        return len(self.index)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew: call before each epoch with its number."""
        self._epoch[0] = epoch

    def __getitem__(self, row: int) -> dict[str, object]:
        """The queue that ends at frame `row`, or at a random other one (see `filter_empty_gt`).

        Returns images (T, 6, 3, H, W), lidar2img (T, 6, 4, 4) and can_bus (T, 18) in float32, has_prev (T,)
        bool, and `data_samples`: a Det3DDataSample with the ground truth of the last frame.
        Raises ImagesBroken when a file cannot be read.
        """
        row = range(len(self))[row]
        rng = self._draws(row)
        return self._item(self._draw_queue(row, rng), None, rng, self._augmented(row))

    def _draws(self, row: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, int(self._epoch[0]), row])

    def _augmented(self, row: int) -> Drawn:
        if self.augmentation is None:
            return Drawn(None, None)
        return self.augmentation.draw((self.seed, int(self._epoch[0]), row), len(self.index.camera_names))

    def _item(
        self, rows: Sequence[int], previous: Frame | None, rng: np.random.Generator, drawn: Drawn
    ) -> dict[str, object]:
        """The item of these frames, the first of which comes after `previous`."""
        frames = [self.index.frame(row) for row in rows]
        moves = self._moves(frames[-1], drawn)
        to_still = np.linalg.inv(moves.lidar.numpy())
        images, lidar2img, can_bus, has_prev = [], [], [], []
        for frame in frames:
            colours = rng if self.distort else None
            prepared, projection = self.pipeline.load(frame, self.dataroot, colours, drawn.images)
            if previous is not None and previous.scene_token != frame.scene_token:
                previous = None
            images.append(prepared)
            lidar2img.append(projection @ to_still)
            can_bus.append(relative_can_bus(frame, previous))
            has_prev.append(previous is not None)
            previous = frame
        item: dict[str, object] = {
            "images": torch.from_numpy(np.stack(images)),
            "lidar2img": torch.from_numpy(np.stack(lidar2img).astype(np.float32)),
            "can_bus": torch.from_numpy(np.stack(can_bus).astype(np.float32)),
            "has_prev": torch.tensor(has_prev),
            "data_samples": self.data_sample(rows[-1], moves.lidar),
        }
        item |= self._extra_inputs(frames, drawn.images, moves.bev.numpy())
        if self.augmentation is not None:
            item[MOVES] = moves
        for transform in self.transforms:
            item = transform(item)
        return item

    def _moves(self, frame: Frame, drawn: Drawn) -> Moves:
        still = np.linalg.inv(self.pipeline.image_transform(frame.image_hw))
        cameras = len(frame.camera_to_ego)
        if drawn.images is None:
            images = np.tile(np.eye(4), (cameras, 1, 1))
        else:
            images = self.pipeline.image_transform(frame.image_hw, drawn.images) @ still
        bev = np.eye(4) if drawn.bev is None else drawn.bev
        lidar = np.eye(4) if BEV_TRANSFORM in self.extra_inputs else bev
        return Moves(*map(torch.from_numpy, (images, lidar, bev)))

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, object]] | Failure:
        """The queues of a batch, as a DataLoader asks for them. In its worker, a Failure is returned."""
        return or_failure(lambda: [self[row] for row in rows])

    def _extra_inputs(
        self, frames: Sequence[Frame], draws: Sequence[ImageDraw] | None, bev: np.ndarray
    ) -> dict[str, Tensor]:
        """Matrices (T, …) float64 of all frames, and the depth (1, 6, H, W) of the last one alone.

        Args:
            draws: what moved the images.
            bev: (4, 4), what moved the BEV map's frame.
        """
        moves_ego = BEV_TRANSFORM in self.extra_inputs
        wanted = [name for name in self.extra_inputs if name in RIG_NAMES]
        rigs = [frame_rig(frame, self.pipeline, draws) for frame in frames] if wanted else []
        extra = {name: torch.from_numpy(np.stack([rig[name] for rig in rigs])) for name in wanted}
        if moves_ego:
            extra[BEV_TRANSFORM] = torch.from_numpy(np.stack([bev] * len(frames)))
        if moves_ego and "lidar2ego" in extra:
            extra["lidar2ego"] = extra[BEV_TRANSFORM] @ extra["lidar2ego"]
        if LIDAR_DEPTH in self.extra_inputs:
            depth = lidar_depth(frames[-1], self.dataroot, self.pipeline, draws)
            extra[LIDAR_DEPTH] = torch.from_numpy(depth)[None]
        return extra

    def labels_of(self, row: int) -> set[int]:
        """The classes that frame `row` has ground truth of, by their number in `class_names`."""
        kept = self._kept[self.index.annotation_rows(row)]
        return set(self._label_map[self.index.frame(row).gt_labels[kept]].tolist())

    def data_sample(self, row: int, lidar_move: Tensor | None = None) -> Det3DDataSample:
        """What is known about frame `row` and its filtered ground truth; reads no image.

        Args:
            lidar_move: (4, 4), moves the boxes before they are filtered; None leaves them.
        """
        frame, at = self.index.frame(row), self.index.annotation_rows(row)
        boxes, kept = frame.gt_boxes, self._kept[at]
        if lidar_move is not None and not torch.equal(lidar_move, torch.eye(4).to(lidar_move)):
            boxes = move_boxes(torch.tensor(boxes), lidar_move).numpy()
            kept = self._keep(boxes, frame.gt_labels, self.index.columns["valid"][at])
        boxes = boxes[kept].astype(np.float32)
        if self.unknown_velocity == "zero":
            boxes = np.nan_to_num(boxes, nan=0.0)
        ground_truth = InstanceData(
            # mmdet3d keeps the bottom centre; the origin says that these are gravity centres.
            bboxes_3d=LiDARInstance3DBoxes(torch.from_numpy(boxes), box_dim=9, origin=(0.5, 0.5, 0.5)),
            labels_3d=torch.from_numpy(self._label_map[frame.gt_labels[kept]]),
        )
        sample = Det3DDataSample(
            metainfo={
                "sample_token": frame.sample_token,
                "scene_token": frame.scene_token,
                "timestamp_us": frame.timestamp_us,
                "img_shape": self.pipeline.pad_hw,
                "class_names": self.class_names,
                "box_type_3d": LiDARInstance3DBoxes,
            }
        )
        sample.gt_instances_3d = ground_truth
        return sample

    def _draw_queue(self, row: int, rng: np.random.Generator) -> list[int]:
        for _ in range(MAX_REDRAWS):
            before = np.arange(row - self.queue_length, row)
            dropped = rng.integers(self.queue_length) if self.drop_history_frame else 0
            rows = [max(0, int(r)) for r in np.delete(before, dropped)] + [row]
            if not self.filter_empty_gt or self._has_gt[rows].all():
                return rows
            row = int(rng.integers(len(self)))
        raise ConfigInvalid(
            f"{MAX_REDRAWS} random queues of {self.queue_length} frames all held a frame without ground truth"
            f" inside {self.point_cloud_range}. Widen it, shorten the queue, or set filter_empty_gt=False."
        )

    def _keep(self, boxes: np.ndarray, labels: np.ndarray, valid: np.ndarray) -> np.ndarray:
        x_min, y_min, _, x_max, y_max, _ = self.point_cloud_range
        # The official filter compares in float32.
        x, y = np.float32(boxes[:, 0]), np.float32(boxes[:, 1])
        inside = (x > x_min) & (y > y_min) & (x < x_max) & (y < y_max)
        return valid & inside & (self._label_map[labels] >= 0)

    def _check_options(self) -> None:
        unknown = [name for name in self.class_names if name not in self.index.class_names]
        if unknown:
            raise ConfigInvalid(
                f"class_names: {', '.join(unknown)} are not among {', '.join(self.index.class_names)}."
            )
        if len(self.point_cloud_range) != 6:
            raise ConfigInvalid(f"point_cloud_range: expected 6 numbers, got {self.point_cloud_range}.")
        odd = sorted(set(self.extra_inputs) - set(EXTRA_INPUT_NAMES))
        if odd:
            known = ", ".join((*INPUT_NAMES, *EXTRA_INPUT_NAMES))
            raise ConfigInvalid(f"the detector reads {', '.join(odd)}; a frame has {known}.")
        if self.unknown_velocity not in UNKNOWN_VELOCITIES:
            raise ConfigInvalid(
                f"unknown_velocity: expected one of {', '.join(UNKNOWN_VELOCITIES)}, got"
                f" {self.unknown_velocity!r}."
            )
        if self.queue_length < 1:
            raise ConfigInvalid(f"queue_length: expected 1 or more, got {self.queue_length}.")
        if len(self.index) == 0:
            raise ConfigInvalid(f"split {self.index.split!r} of {self.index.version} holds no frame.")


def collate_queue(batch: Sequence[Mapping[str, object]] | Failure) -> dict[str, object] | Failure:
    """Items of a training dataset to one batch; a failure to read them goes on as it is.

    Returns `inputs` with stacked tensors, `data_samples` as a list and, when transforms added something,
    `extras`: by name a list with one entry a sample, since what they add may be as long as it likes.
    """
    if isinstance(batch, Failure):
        return batch
    names = [name for name in (*INPUT_NAMES, *EXTRA_INPUT_NAMES, *SIZES) if name in batch[0]]
    inputs: dict[str, Tensor] = {name: torch.stack([item[name] for item in batch]) for name in names}
    collated = {"inputs": inputs, "data_samples": [item["data_samples"] for item in batch]}
    extras = [name for name in batch[0] if name not in (*names, "data_samples")]
    if extras:
        collated["extras"] = {name: [item[name] for item in batch] for name in extras}
    return collated
