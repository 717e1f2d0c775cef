"""How far apart two stores are, array by array, over the samples that both hold.

Stores of different profiles are compared by the teacher's arrays: int8 maps are dequantised first. Against a
`focal` store, a map is compared in the cells that it kept and a query array in the queries that it kept.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from cache_schema.inspection.tables import aligned
from cache_schema.inspection.teacher_values import TeacherValues, query_axes, teacher_values
from cache_schema.reader import TargetReader
from cache_schema.storage import StorePath

_BLOCK = 1 << 20  # values at a time: float64 copies of a whole map would take gigabytes


@dataclass
class ArrayDifference:
    """Sums over all common samples of one array.

    Attributes:
        largest: of |a - b|.
        relative: largest |a - b| of a sample over the largest |a| of that sample; of all samples.
    """

    n_values: int = 0
    largest: float = 0.0
    relative: float = 0.0
    signal: float = 0.0
    other: float = 0.0
    noise: float = 0.0
    product: float = 0.0

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        """One sample of the two, in equal shape."""
        largest = peak = 0.0
        flat_a, flat_b = a.reshape(-1), b.reshape(-1)
        for start in range(0, flat_a.size, _BLOCK):
            x = flat_a[start : start + _BLOCK].astype(np.float64)
            y = flat_b[start : start + _BLOCK].astype(np.float64)
            error = x - y
            largest = max(largest, float(np.abs(error).max()))
            peak = max(peak, float(np.abs(x).max()))
            self.signal += float(x @ x)
            self.other += float(y @ y)
            self.noise += float(error @ error)
            self.product += float(x @ y)
        self.n_values += flat_a.size
        self.largest = max(self.largest, largest)
        if largest:
            self.relative = max(self.relative, largest / peak if peak else math.inf)

    @property
    def snr_db(self) -> float:
        """Signal to noise, in decibels; infinite when nothing differs."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """Between all values of the one and of the other; 1 when both are all zero."""
        if not self.noise:
            return 1.0
        lengths = math.sqrt(self.signal) * math.sqrt(self.other)
        return self.product / lengths if lengths else 0.0


@dataclass
class Difference:
    """Of two stores. `only_in_a` and `only_in_b` are sample tokens, `arrays_only_in_…` names."""

    samples: int = 0
    arrays: dict[str, ArrayDifference] = field(default_factory=dict)
    misshapen: dict[str, str] = field(default_factory=dict)
    only_in_a: list[str] = field(default_factory=list)
    only_in_b: list[str] = field(default_factory=list)
    arrays_only_in_a: list[str] = field(default_factory=list)
    arrays_only_in_b: list[str] = field(default_factory=list)
    partial: bool = False

    def within(self, tolerance: float) -> bool:
        """Whether something was compared, and no value is off by more than this share of the largest."""
        compared = self.samples > 0 and bool(self.arrays) and not self.misshapen
        return compared and all(array.relative <= tolerance for array in self.arrays.values())


def difference(
    path_a: StorePath, path_b: StorePath, on_samples: Callable[[int, int], None] = lambda done, total: None
) -> Difference:
    """Compare two stores; `path_a` counts as right.

    Raises StoreNotFound, SchemaTooNew, or Corrupt when something cannot be read.
    """
    a, b = TargetReader(path_a), TargetReader(path_b)
    names_a, names_b = ([array.name for array in reader.spec.arrays] for reader in (a, b))
    tokens_b = set(b.sample_tokens)
    common = [token for token in a.sample_tokens if token in tokens_b]
    found = Difference(
        samples=len(common),
        arrays={name: ArrayDifference() for name in names_a if name in names_b},
        only_in_a=[token for token in a.sample_tokens if token not in tokens_b],
        only_in_b=[token for token in b.sample_tokens if token not in a],
        arrays_only_in_a=[name for name in names_a if name not in names_b],
        arrays_only_in_b=[name for name in names_b if name not in names_a],
        partial=(a.spec.profile == "focal") != (b.spec.profile == "focal"),
    )
    axes = query_axes(a.spec)
    for done, token in enumerate(common, start=1):
        values = teacher_values(a.spec, a[token]), teacher_values(b.spec, b[token])
        for name, left, right in _pairs(*values, axes, found.arrays):
            if left.shape != right.shape:
                found.misshapen[name] = f"{left.shape} and {right.shape}"
            else:
                found.arrays[name].add(left, right)
        on_samples(done, len(common))
    for name in found.misshapen:
        del found.arrays[name]
    return found


def _pairs(
    a: TeacherValues, b: TeacherValues, axes: dict[str, int], names: dict[str, ArrayDifference]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for name in names:
        left, right = a.arrays[name], b.arrays[name]
        if name in axes:
            left, right = _common_queries(left, right, a.query_index, b.query_index, axes[name])
        elif (name in a.masks) != (name in b.masks):
            mask = a.masks[name] if name in a.masks else b.masks[name]
            if mask.shape == (*left.shape[:-3], *left.shape[-2:]) and left.shape == right.shape:
                left, right = (np.moveaxis(feats, -3, -1)[mask] for feats in (left, right))
        yield name, left, right


def _common_queries(
    left: np.ndarray,
    right: np.ndarray,
    left_index: np.ndarray | None,
    right_index: np.ndarray | None,
    axis: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The queries that both stores kept."""
    if left_index is None and right_index is None:
        return left, right
    rows_left = np.arange(left.shape[axis]) if left_index is None else left_index
    rows_right = np.arange(right.shape[axis]) if right_index is None else right_index
    _, at_left, at_right = np.intersect1d(rows_left, rows_right, assume_unique=True, return_indices=True)
    return np.take(left, at_left, axis), np.take(right, at_right, axis)


def as_text(found: Difference, tolerance: float) -> str:
    """A table, and what was not compared."""
    if not found.samples or not (found.arrays or found.misshapen):
        what = "sample" if not found.samples else "array"
        sides = (
            (found.only_in_a, found.only_in_b)
            if not found.samples
            else (found.arrays_only_in_a, found.arrays_only_in_b)
        )
        return (
            f"nothing was compared: the stores have no {what} in common; the first has {len(sides[0]):,},"
            f" such as {', '.join(sides[0][:1]) or 'none'}, the second {len(sides[1]):,},"
            f" such as {', '.join(sides[1][:1]) or 'none'}"
        )
    rows = [("array", "values compared", "largest |a-b|", "of the largest |a|", "SNR dB", "cosine", "")]
    for name, array in found.arrays.items():
        verdict = "" if array.relative <= tolerance else "beyond tolerance"
        numbers = (
            f"{array.n_values:,}",
            f"{array.largest:.4g}",
            f"{array.relative:.4g}",
            "equal" if array.snr_db == math.inf else f"{array.snr_db:.2f}",
            f"{array.cosine:.9f}",
        )
        rows.append((name, *numbers, verdict))
    lines = [f"{found.samples:,} samples in both", "", *aligned(rows, right=range(1, 6))]
    if found.partial:
        lines.append("One store is focal: maps and queries were compared where that one kept them.")
    lines += [f"{name}: shapes differ, {shapes}" for name, shapes in found.misshapen.items()]
    for what, missing in (
        ("samples only in the first", found.only_in_a),
        ("samples only in the second", found.only_in_b),
        ("arrays only in the first", found.arrays_only_in_a),
        ("arrays only in the second", found.arrays_only_in_b),
    ):
        if missing:
            lines += ["", f"{len(missing):,} {what}:", *(f"  {item}" for item in missing)]
    return "\n".join(lines)
