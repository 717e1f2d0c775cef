"""The teacher's detections, replayed from the query predictions in a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from cache_schema.layout import QUERY_DIMENSION
from cache_schema.reader import TargetReader
from camera3d.boxes import BOX_CONVENTION
from camera3d.detectors.protocol import Detections
from camera3d.detectors.query_based.decode import MAX_DETECTIONS, decode_queries
from camera3d.errors import ConfigInvalid
from camera3d.evaluation.predict import require_finite_queries

NEEDED = ("query_logits", "query_boxes")


def check_replayable(reader: TargetReader) -> None:
    """Raise ConfigInvalid when a store lacks query predictions, or encodes boxes in an unknown way."""
    missing = [name for name in NEEDED if name not in {array.name for array in reader.spec.stored_arrays}]
    if missing:
        raise ConfigInvalid(
            f"{reader.path} holds no {' and no '.join(missing)}: detections cannot be replayed from it. Dump"
            " the teacher with --arrays queries, alone or among others."
        )
    if reader.spec.outputs.box_convention != BOX_CONVENTION:
        raise ConfigInvalid(
            f"{reader.path} encodes boxes otherwise than this code reads them:\n"
            f"  expected {BOX_CONVENTION}\n  store has {reader.spec.outputs.box_convention}\n"
            "Evaluate it with the version that dumped it, or dump it again."
        )


def check_complete(reader: TargetReader) -> None:
    """Raise ConfigInvalid when a store keeps confident queries only: their score is not the teacher's."""
    if reader.spec.focal is not None:
        raise ConfigInvalid(
            f"{reader.path} is of profile focal: the teacher's queries below a score of"
            f" {reader.spec.focal.confidence:g} are not in it, and the recall that they add counts in mAP and"
            " NDS. What would be printed is not the teacher's score. Evaluate its checkpoint, or dump it with"
            " --arrays queries --profile exact, which is small, and replay that."
        )


def cached_detections(reader: TargetReader, sample_tokens: Iterable[str]) -> Iterator[tuple[str, Detections]]:
    """Sample token and detections of the last decoder layer, by the rule of the detector's `decode`.

    A store of profile `focal` holds the confident queries only; a query that was left out is no detection.
    Labels count in `reader.spec.outputs.class_names`.

    Raises:
        CacheError: a sample is missing or damaged.
        OutputsNotFinite: a sample holds predictions that are not.
    """
    check_replayable(reader)
    max_detections = int(reader.spec.teacher.config.get("max_detections", MAX_DETECTIONS))
    for token in sample_tokens:
        stored = reader.read(token, NEEDED)
        logits, boxes = (_last_layer(reader, name, stored[name]) for name in NEEDED)
        require_finite_queries(token, logits, boxes)
        yield token, decode_queries(logits, boxes, max_detections=max_detections)


def _last_layer(reader: TargetReader, name: str, stored: np.ndarray) -> torch.Tensor:
    """(Q, K) float32 of a stored (L, Q, K); profile `focal` stores (Q, L, K), the kept queries first."""
    dimensions = list(next(array.dimension_names for array in reader.spec.arrays if array.name == name))
    if reader.spec.profile == "focal":
        stored = np.moveaxis(stored, 0, dimensions.index(QUERY_DIMENSION))
    last = np.take(stored, -1, axis=dimensions.index("layer"))
    return torch.from_numpy(np.ascontiguousarray(last, dtype=np.float32))
