"""Which dataset a config is about: how its splits are found, indexed, and read frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch.utils.data import Dataset

from camera3d.boxes import BOXES_3D
from camera3d.data.coco import folder as coco_folder
from camera3d.data.coco.frames import CocoFrames
from camera3d.data.coco.index import IMAGES_PER_GROUP, CocoIndex
from camera3d.data.coco.reader import build_coco_index
from camera3d.data.devkit import check_dataroot
from camera3d.data.images import ImagePipeline
from camera3d.data.index import NuScenesIndex
from camera3d.data.kept_index import load_or_build_index
from camera3d.data.scene_chain import MAX_GAP_S
from camera3d.data.split_index import SplitIndex
from camera3d.data.splits import check_split, fitting_splits
from camera3d.data.streaming import StreamingFrames
from camera3d.errors import ConfigInvalid, SplitMismatch

DATASETS = NUSCENES, COCO = (NuScenesIndex.dataset, CocoIndex.dataset)
INDICES = {NUSCENES: NuScenesIndex, COCO: CocoIndex}


@dataclass(frozen=True, kw_only=True)
class DatasetChoice:
    """`dataset` of a config.

    Attributes:
        type: one of DATASETS.
        class_names: the detector's; nuScenes has its own order, and keeps all ten.
        images_per_group: of a COCO-format dataset.
    """

    type: str = NUSCENES
    class_names: tuple[str, ...] = ()
    images_per_group: int = IMAGES_PER_GROUP

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """nuScenes, when the config does not say.

        Raises ConfigInvalid when the dataset's boxes are not what the detector predicts.
        """
        chosen = cls(
            class_names=tuple(config.model.get("class_names", ())), **dict(config.get("dataset") or {})
        )
        detector = config.model.get("type")
        own = getattr(MODELS.get(detector), "box_kind", BOXES_3D)
        kind = INDICES[chosen.type].box_kind
        if kind != own:
            fitting = next(name for name, index in INDICES.items() if index.box_kind == own)
            raise ConfigInvalid(
                f"config {config.filename or ''}: {detector} predicts {own.name}, and a dataset of type"
                f" {chosen.type!r} has {kind.name}. Set dataset=dict(type={fitting!r})."
            )
        return chosen

    def index(
        self,
        dataroot: str | Path,
        version: str,
        split: str,
        *,
        scenes: Iterable[str] | None = None,
        max_gap_s: float = MAX_GAP_S,
    ) -> SplitIndex:
        """The index of a split. Raises as `load_or_build_index` and `build_coco_index` do."""
        if self.type == NUSCENES:
            return load_or_build_index(dataroot, version, split, scenes=scenes, max_gap_s=max_gap_s)
        return build_coco_index(
            dataroot,
            version,
            split,
            class_names=self.class_names,
            images_per_group=self.images_per_group,
            scenes=scenes,
        )

    def require_split(self, dataroot: str | Path, version: str, split: str) -> None:
        """What can be told before tables are read. Raises DatasetNotFound or SplitMismatch."""
        if self.type == NUSCENES:
            check_dataroot(dataroot, version)
            check_split(dataroot, version, split)
        else:
            coco_folder.annotation_file(dataroot, version, split)

    def default_splits(self, dataroot: str | Path, version: str) -> tuple[str, str]:
        """The splits of a version that are meant for training and for validation.

        Raises SplitMismatch when it has no such pair, so that they must be named.
        """
        fitting = fitting_splits if self.type == NUSCENES else coco_folder.fitting_splits
        splits = fitting(dataroot, version)
        pair = tuple(next((s for s in splits if s.endswith(end)), None) for end in ("train", "val"))
        if None in pair:
            raise SplitMismatch(
                f"{version} has no pair of splits that end with train and val, but"
                f" {', '.join(splits) or 'none'}. Name them with --split and --val-split."
            )
        return pair


def streaming_frames(index: SplitIndex, pipeline: ImagePipeline, dataroot: str | Path) -> Dataset:
    """All frames of an index in order, undistorted, as `encode` of a detector takes them one by one."""
    kind = StreamingFrames if isinstance(index, NuScenesIndex) else CocoFrames
    return kind(index, pipeline, dataroot)
