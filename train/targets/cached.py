"""Targets from a store: the dataset transform that reads them, and the source that hands them on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from cache_schema.reader import TargetReader
from camera3d.data.queue_dataset import MOVES
from train.targets.layout import TargetLayout, stored_names
from train.targets.teacher_targets import TeacherTargets
from train.targets.warp import TargetWarp


class CachedTargets:
    """Adds `targets` to an item of NuScenesQueueDataset: the stored arrays of its last frame, as stored.

    Nothing is unpacked here: half-precision, int8 and ragged arrays travel to the device as they are, which
    is the fewest bytes. Pickles as its arguments; every data worker opens the store for itself.

    Args:
        reader: of the store.
        names: the teacher's arrays that the terms need, such as `bev_feats`; no others are read.
        layer: of the store; what it has of these is read from it.

    Raises SampleMissing or Corrupt, when an item is read, with the sample's token.
    """

    def __init__(self, reader: TargetReader, names: Iterable[str], layer: TargetReader | None = None) -> None:
        self.reader, self.layer = reader, layer
        held = set() if layer is None else {array.name for array in layer.spec.arrays}
        names = tuple(names)
        self.names = stored_names(reader.spec, (name for name in names if name not in held))
        self.layer_names = () if layer is None else stored_names(layer.spec, held.intersection(names))

    def __call__(self, item: dict[str, object]) -> dict[str, object]:
        """The item with `targets`: tensors by the stored arrays' names."""
        token = item["data_samples"].sample_token
        arrays = self.reader.read(token, self.names)
        if self.layer is not None:
            arrays |= self.layer.read(token, self.layer_names)
        return item | {"targets": {name: torch.from_numpy(values) for name, values in arrays.items()}}


class CacheSource:
    """Hands on what `CachedTargets` read and the preprocessor moved to the device.

    Args:
        layout: of the store.
        warp: what moves targets of augmented samples.
    """

    def __init__(self, layout: TargetLayout, warp: TargetWarp) -> None:
        self.layout, self.warp = layout, warp

    def targets(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list],
    ) -> TeacherTargets:
        """See TargetSource."""
        return TeacherTargets(extras["targets"], self.layout, self.warp, extras.get(MOVES))
