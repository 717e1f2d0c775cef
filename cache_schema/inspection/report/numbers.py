"""Numbers over the samples of a page: scores, values of the maps, and what the profile left out of them."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from cache_schema.detections import DETECTION_SCORES
from cache_schema.inspection.sample import Sample
from cache_schema.profiles.compact import SCALE_SUFFIX
from cache_schema.profiles.focal import CONFIDENT_ARRAY

_VALUES_A_MAP = 20_000  # of each sample: enough for a histogram


@dataclass(frozen=True)
class MapLoss:
    """What is stored of a map.

    Attributes:
        stored_as: dtype of its cells.
        steps: smallest, median and largest int8 step over channels and samples; None when it is not int8.
        error_share: rounding error as a share of the map's root mean square; None when it is not int8.
        kept_share: share of the cells that were kept; 1 when all were.
    """

    name: str
    stored_as: str
    steps: tuple[float, float, float] | None
    error_share: float | None
    kept_share: float


@dataclass
class Tally:
    """Sums up samples one by one, so that only one has to be in memory."""

    scores: list[np.ndarray] = field(default_factory=list)
    values: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    kept_queries: list[float] = field(default_factory=list)
    _dtypes: dict[str, str] = field(default_factory=dict)
    _scales: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    _kept: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sample: Sample) -> None:
        """Count a sample in."""
        self.scores.append(sample.arrays.get(DETECTION_SCORES, np.zeros(0, np.float32)))
        for array in sample.spec.arrays:
            if not array.is_map:
                continue
            name, stored = array.name, sample.stored
            flat = sample.arrays[name].reshape(-1)
            self.values[name].append(flat[:: max(1, flat.size // _VALUES_A_MAP)].astype(np.float32))
            self._dtypes[name] = str(stored.get(name, stored.get(f"{name}_cells")).dtype)
            self._kept[name].append(float(sample.masks[name].mean()) if name in sample.masks else 1.0)
            if name + SCALE_SUFFIX in stored:
                self._scales[name].append(stored[name + SCALE_SUFFIX].reshape(-1))
        if CONFIDENT_ARRAY in sample.stored:
            self.kept_queries.append(float(sample.stored[CONFIDENT_ARRAY].mean()))

    def losses(self) -> list[MapLoss]:
        """What is stored of every map."""
        return [self._loss(name) for name in self.values]

    def _loss(self, name: str) -> MapLoss:
        steps = error = None
        if name in self._scales:
            scales = np.concatenate(self._scales[name]).astype(np.float64)
            used = scales[scales > 0]
            if used.size:
                steps = (float(used.min()), float(np.median(used)), float(used.max()))
                # Rounding to the nearest is off by a step / √12 in the root mean square.
                signal = np.sqrt(np.square(np.concatenate(self.values[name]).astype(np.float64)).mean())
                error = float(np.sqrt(np.square(scales).mean() / 12) / signal) if signal > 0 else None
        return MapLoss(name, self._dtypes[name], steps, error, float(np.mean(self._kept[name])))
