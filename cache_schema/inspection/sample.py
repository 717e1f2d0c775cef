"""One sample of a store as `show` needs it: plain arrays, the boxes in them, and their statistics."""

from dataclasses import dataclass, replace

import numpy as np

from cache_schema.array_spec import BEV_MAP, IMAGE_MAP, QUERY
from cache_schema.detections import DETECTION_ARRAYS, DETECTION_BOXES
from cache_schema.inspection.boxes import PICTURE_NUMBERS, ScoredBoxes, best_boxes
from cache_schema.inspection.tables import aligned, shape_text
from cache_schema.inspection.teacher_values import teacher_values
from cache_schema.layers import open_layer
from cache_schema.reader import TargetReader
from cache_schema.spec import StoreSpec, TeacherFacts
from cache_schema.storage import StorePath

DEFAULT_RANGE_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


@dataclass(frozen=True)
class Sample:
    """A sample and what is needed to understand it.

    Attributes:
        stored: the arrays as they lie in the store.
        arrays: the teacher's arrays, dequantised.
        masks: (…, y, x) bool by map, the cells that a focal store kept; empty in other profiles.
        range_m: x, y, z from and to, of the area that the teacher covers, in metres.
        boxes: the teacher's; None when it detected nothing.
        head: of a layer that was asked for: whose queries and boxes these are instead of the teacher's.
    """

    token: str
    scene_name: str
    timestamp_us: int
    spec: StoreSpec
    stored: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    range_m: tuple[float, ...]
    boxes: ScoredBoxes | None
    head: TeacherFacts | None = None

    @property
    def on_picture(self) -> bool:
        """Whether its boxes are on a picture, and not in space."""
        shapes = {array.name: array.shape for array in self.spec.arrays}
        return shapes.get(DETECTION_BOXES, (0, 9))[-1] == PICTURE_NUMBERS

    @property
    def finest_pv(self) -> str | None:
        """Name of the image-view map with the most cells; None when the store has none."""
        levels = self._names(IMAGE_MAP)
        return max(levels, key=lambda name: self.arrays[name].size, default=None)

    @property
    def bev_map(self) -> str | None:
        """Name of the teacher's bird's-eye-view map; None when the store has none."""
        return next(iter(self._names(BEV_MAP)), None)

    @property
    def lidar2map(self) -> np.ndarray | None:
        """(4, 4) from the boxes' frame to that of the bird's-eye-view map; None when it is the same."""
        array = next((array for array in self.spec.arrays if array.name == self.bev_map), None)
        if array is None or array.frame != "ego":
            return None
        return self.arrays.get("lidar2ego")

    def _names(self, role: str) -> list[str]:
        return [array.name for array in self.spec.arrays if array.role == role]


def load_sample(path: StorePath, sample_token: str, min_score: float, layer: str | None = None) -> Sample:
    """A sample; with a layer, what the layer says of it in place of the teacher's queries and boxes.

    Raises CacheError when the store, the layer, the sample or its bytes are not what they should be.
    """
    reader = TargetReader(path)
    return read_sample(reader, sample_token, min_score, None if layer is None else open_layer(reader, layer))


def read_sample(
    reader: TargetReader, sample_token: str, min_score: float, layer: TargetReader | None = None
) -> Sample:
    """`load_sample` of a store and a layer that are open."""
    stored = reader[sample_token]
    values = teacher_values(reader.spec, stored)
    arrays = values.arrays
    spec, masks = reader.spec, values.masks
    if layer is not None:
        own = layer[sample_token]
        added = teacher_values(layer.spec, own)
        replaced = set()
        if any(array.role == QUERY for array in layer.spec.arrays):
            replaced = {a.name for a in (*spec.arrays, *spec.stored_arrays) if a.role == QUERY}
        stored = {name: array for name, array in stored.items() if name not in replaced} | own
        arrays = {name: array for name, array in arrays.items() if name not in replaced} | added.arrays
        masks = masks | added.masks
        if layer.spec.layer.reads is None:  # more of the same teacher's
            spec = replace(spec, arrays=(*spec.arrays, *layer.spec.arrays))
    found = [arrays[name] for name in DETECTION_ARRAYS if name in arrays]
    return Sample(
        token=sample_token,
        scene_name=reader.scene_of(sample_token),
        timestamp_us=reader.timestamp_us(sample_token),
        spec=spec,
        stored=stored,
        arrays=arrays,
        masks=masks,
        range_m=_range_m(spec),
        boxes=best_boxes(*found, threshold=min_score) if found and len(found[0]) else None,
        head=None if layer is None or layer.spec.layer.reads is None else layer.spec.teacher,
    )


def statistics(sample: Sample) -> str:
    """A table: for each array smallest, largest, mean, standard deviation, share of zeros, Euclidean norm."""
    rows = [("array", "dtype", "shape", "min", "max", "mean", "std", "zeros", "norm")]
    for name, values in sample.stored.items():
        row = (name, str(values.dtype), shape_text(values.shape))
        if values.size == 0:
            rows.append((*row, *("–" for _ in range(6))))
            continue
        flat = values.reshape(-1).astype(np.float64)
        numbers = (flat.min(), flat.max(), flat.mean(), flat.std())
        zeros = float((flat == 0).mean())
        norm = float(np.linalg.norm(flat))
        rows.append((*row, *(f"{number:.4g}" for number in numbers), f"{zeros:.2%}", f"{norm:.4g}"))
    about = [
        ("sample", sample.token),
        ("scene", sample.scene_name),
        ("place", f"{sample.timestamp_us} in the annotations")
        if sample.on_picture
        else ("taken at", f"{sample.timestamp_us} µs"),
        ("boxes", _about_boxes(sample)),
        *([] if sample.head is None else [("queries and boxes of", sample.head.detector)]),
    ]
    return "\n".join([*aligned(about), "", *aligned(rows, right=range(3, 9))])


def _about_boxes(sample: Sample) -> str:
    boxes = sample.boxes
    if boxes is None:
        return "none: the teacher detected nothing"
    if boxes.threshold is None:
        text = f"none scores enough; the best has {boxes.scores[0]:.3f}"
        return text + ("" if sample.spec.teacher.trained else " (the teacher is UNTRAINED)")
    classes = sample.spec.outputs.class_names
    counts = {classes[label]: int((boxes.labels == label).sum()) for label in np.unique(boxes.labels)}
    listed = ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
    return f"{len(boxes.scores)} with a score of {boxes.threshold:g} or more: {listed}"


def _range_m(spec: StoreSpec) -> tuple[float, ...]:
    """What the teacher covers: as its outputs say, or else as far as detections are looked at."""
    return next((array.extent_m for array in spec.teacher_outputs if array.extent_m), DEFAULT_RANGE_M)
