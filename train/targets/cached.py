"""The dataset transform that adds what the store holds about a sample."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cache_schema.reader import TargetReader
from train.targets.layout import stored_names


class CachedTargets:
    """Adds `targets` to an item of NuScenesQueueDataset: the stored arrays of its last frame, as stored.

    Nothing is unpacked here: half-precision, int8 and ragged arrays travel to the device as they are, which
    is the fewest bytes. Pickles as its arguments; every data worker opens the store for itself.

    Args:
        reader: of the store.
        names: the teacher's arrays that the terms need, such as `bev_feats`; no others are read.

    Raises SampleMissing or Corrupt, when an item is read, with the sample's token.
    """

    def __init__(self, reader: TargetReader, names: Iterable[str]) -> None:
        self.reader = reader
        self.names = stored_names(reader.spec, names)

    def __call__(self, item: dict[str, object]) -> dict[str, object]:
        """The item with `targets`: tensors by the stored arrays' names."""
        arrays = self.reader.read(item["data_samples"].sample_token, self.names)
        return item | {"targets": {name: torch.from_numpy(values) for name, values in arrays.items()}}
