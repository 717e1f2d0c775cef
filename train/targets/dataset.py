"""A store as a PyTorch dataset, for those who want the teacher's outputs and none of our training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache_schema.errors import Problem, SpecInvalid
from cache_schema.profiles.focal import CONFIDENT_ARRAY
from cache_schema.reader import TargetReader
from train.targets.layout import TargetLayout, stored_names
from train.targets.teacher_targets import TeacherTargets


class StoreDataset(Dataset):
    """The samples of a store, scene by scene and in time order, with the same shapes for every profile.

    An item is a dict of `sample_token`, `timestamp_us` and the teacher's arrays by name. Maps
    (camera, channel, y, x) or (channel, y, x) and arrays about object queries are float32, whatever was
    stored: int8 is multiplied by its scales; of profile `focal`, cells between the areas have the mean of
    their block, queries that were not kept are zero, and `query_confident` (query,) says which were. All
    other arrays are as stored, detections with as many rows as the sample has.

    Args:
        store: a path or `s3://…`, or a reader that is open.
        names: of the teacher's arrays; None for all that the store has.

    Raises:
        SpecInvalid: the store has no array of one of these names.
        CacheError: as TargetReader, here or when an item is read.
    """

    def __init__(self, store: str | Path | TargetReader, names: Iterable[str] | None = None) -> None:
        self.reader = store if isinstance(store, TargetReader) else TargetReader(store)
        spec = self.reader.spec
        arrays = {array.name: array for array in spec.arrays}
        self.names = tuple(arrays if names is None else names)
        if unknown := [name for name in self.names if name not in arrays]:
            problems = [
                Problem(str(name), f"one of {', '.join(arrays)}", "no such array") for name in unknown
            ]
            raise SpecInvalid(f"{self.reader.path} does not hold what was asked for", problems)
        self._maps = {name for name in self.names if arrays[name].is_map}
        self._layout = TargetLayout.of_store(spec)
        self._stored = stored_names(spec, self.names)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, number: int) -> dict[str, str | int | Tensor]:
        """A sample by its number. Raises IndexError beyond the last one."""
        token = self.reader.sample_tokens[number]
        stored = self.reader.read(token, self._stored)
        tensors = {name: torch.from_numpy(values) for name, values in stored.items()}
        item = {"sample_token": token, "timestamp_us": self.reader.timestamp_us(token)}
        item |= {name: self._unpacked(tensors, name) for name in self.names}
        if CONFIDENT_ARRAY in tensors:
            item[CONFIDENT_ARRAY] = tensors[CONFIDENT_ARRAY]
        return item

    def _unpacked(self, tensors: dict[str, Tensor], name: str) -> Tensor:
        targets = TeacherTargets([tensors], self._layout)
        if name in self._maps:
            return targets.map(name)[0].float()
        return targets.queries(name)[0].float() if name in self._layout.query_axes else tensors[name]
