"""The teacher's detections, replayed from a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from cache_schema.detections import DETECTION_ARRAYS
from cache_schema.reader import TargetReader
from camera3d.data.datasets import INDICES
from camera3d.detectors import Detections
from camera3d.errors import ConfigInvalid


def check_replayable(reader: TargetReader) -> None:
    """Raise ConfigInvalid when a store has boxes of a convention that this code does not read."""
    dataset = reader.spec.dataset.name
    if dataset not in INDICES:
        raise ConfigInvalid(
            f"{reader.path} is of the dataset {dataset!r}; this code evaluates {' and '.join(INDICES)}."
        )
    convention = INDICES[dataset].box_kind.convention
    if reader.spec.outputs.box_convention != convention:
        raise ConfigInvalid(
            f"{reader.path} has boxes of another convention than this code reads:\n"
            f"  expected {convention}\n  store has {reader.spec.outputs.box_convention}\n"
            "Evaluate it with the version that dumped it, or dump it again."
        )


def stored_detections(reader: TargetReader, sample_tokens: Iterable[str]) -> Iterator[tuple[str, Detections]]:
    """Sample token and detections, as the teacher decoded them; the same in every profile.

    Labels count in `reader.spec.outputs.class_names`.

    Raises CacheError: a sample is missing or damaged.
    """
    for token in sample_tokens:
        stored = reader.read(token, DETECTION_ARRAYS)
        boxes, scores, labels = (torch.from_numpy(stored[name]) for name in DETECTION_ARRAYS)
        yield token, Detections(boxes=boxes, scores=scores, labels=labels.long())
