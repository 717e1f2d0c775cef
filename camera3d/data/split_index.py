"""The index of a split of any dataset: everything about its frames but the pixels.

The facts live in a few numpy arrays ("columns"), one row a frame or one row an annotation, and a frame is cut
from them when it is asked for. A data worker therefore holds a few tens of megabytes that the operating
system shares between processes, and never tables of Python objects, whose reference counts would make every
worker copy them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np

from camera3d.boxes import BoxKind
from camera3d.errors import SampleUnknown, ShapeMismatch, shown


@dataclass(frozen=True, kw_only=True)
class Column:
    """One array of the index: dtype ("S" is UTF-8 text of any width) and the shape of one row."""

    dtype: str
    row_shape: tuple[int, ...] = ()
    of_annotations: bool = False


class FrameRange(Sequence):
    """Consecutive frames of an index, made when they are asked for."""

    def __init__(self, index: SplitIndex, rows: range):
        self._index, self._rows = index, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item):
        if isinstance(item, slice):
            return FrameRange(self._index, self._rows[item])
        return self._index.frame(self._rows[item])

    def __iter__(self) -> Iterator:
        return (self._index.frame(row) for row in self._rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One scene: its frames in time order."""

    name: str
    token: str
    frames: Sequence


@dataclass(frozen=True, kw_only=True)
class SceneRows:
    """Which rows of the frame columns a scene holds: [first, stop)."""

    name: str
    token: str
    first: int
    stop: int


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitIndex:
    """The frames of one split of one version of a dataset.

    A dataset's own index says what its columns are and how a frame is cut from them.

    Attributes:
        dataset: what a store calls the dataset.
        box_kind: of its annotated boxes.
        own_columns: its columns, among them `sample_token`, `timestamp_us`, `image_paths`, `image_hw` (native
            height and width) and `annotation_count`.

    Args:
        columns: one array for each of `own_columns`; checked here, all faults reported together.
        scene_rows: the scenes in order; together they cover every frame exactly once.
        notes: what the user was warned of when the index was built, so that a kept index can warn again.

    Raises ShapeMismatch when a column is missing, misshapen or of another length than the rest.
    """

    dataset: ClassVar[str]
    box_kind: ClassVar[BoxKind]
    own_columns: ClassVar[Mapping[str, Column]]

    version: str
    split: str
    scene_rows: tuple[SceneRows, ...]
    columns: Mapping[str, np.ndarray] = field(repr=False)
    class_names: tuple[str, ...]
    camera_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = dict(self.columns)
        _check_columns(columns, self.own_columns, self.scene_rows)
        for array in columns.values():
            array.flags.writeable = False
        ends = np.cumsum(columns["annotation_count"])
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "_annotation_ends", ends)
        object.__setattr__(self, "_row_of_token", None)
        object.__setattr__(
            self, "_scene_firsts", np.array([s.first for s in self.scene_rows], dtype=np.int64)
        )

    def __getstate__(self) -> dict:
        # The token dictionary is rebuilt on demand: a spawned worker need not receive it.
        return {**self.__dict__, "_row_of_token": None}

    def __len__(self) -> int:
        return len(self.columns["timestamp_us"])

    def __getitem__(self, row: int):
        if not -len(self) <= row < len(self):
            raise IndexError(f"frame {row} of an index of {len(self)}")
        return self.frame(row % len(self))

    def __iter__(self) -> Iterator:
        return iter(self.frames())

    @property
    def scenes(self) -> tuple[Scene, ...]:
        """The scenes in the order of their first frames."""
        return tuple(
            Scene(name=s.name, token=s.token, frames=FrameRange(self, range(s.first, s.stop)))
            for s in self.scene_rows
        )

    @property
    def scene_names(self) -> tuple[str, ...]:
        """Names of the scenes, in order."""
        return tuple(scene.name for scene in self.scene_rows)

    def frames(self) -> FrameRange:
        """All frames: scene after scene, in time order."""
        return FrameRange(self, range(len(self)))

    @property
    def image_sizes(self) -> list[tuple[int, int]]:
        """Every native height and width that occurs."""
        return [(int(h), int(w)) for h, w in np.unique(self.columns["image_hw"], axis=0)]

    def scene_of_row(self, row: int) -> SceneRows:
        """The scene that holds frame `row`."""
        return self.scene_rows[int(np.searchsorted(self._scene_firsts, row, side="right")) - 1]

    def annotation_rows(self, row: int) -> slice:
        """Where the annotations of frame `row` lie in the annotation columns."""
        stop = int(self._annotation_ends[row])
        return slice(stop - int(self.columns["annotation_count"][row]), stop)

    def frame(self, row: int):
        """The frame in row `row`, 0 ≤ row < len(self)."""
        raise NotImplementedError

    def row_of(self, sample_token: str) -> int:
        """The row of a sample. Raises SampleUnknown."""
        if self._row_of_token is None:
            tokens = self.columns["sample_token"].tolist()
            object.__setattr__(
                self, "_row_of_token", {token.decode(): row for row, token in enumerate(tokens)}
            )
        try:
            return self._row_of_token[sample_token]
        except KeyError:
            raise SampleUnknown(
                f"sample {sample_token!r} is not in split {self.split!r} of {self.version} ({len(self)}"
                " samples). Use the split that the token was taken from."
            ) from None

    def by_token(self, sample_token: str):
        """The frame of a sample. Raises SampleUnknown."""
        return self.frame(self.row_of(sample_token))

    def select(self, scenes: Iterable[str]) -> Self:
        """The index of these scenes only, in the order of this index. Raises SampleUnknown, naming all."""
        wanted = set(scenes)
        check_scene_names(wanted, self.scene_names, f"split {self.split!r} of {self.version}")
        rows, kept, first = [], [], 0
        for scene in self.scene_rows:
            if scene.name in wanted:
                rows.append(np.arange(scene.first, scene.stop))
                kept.append(replace(scene, first=first, stop=first + scene.stop - scene.first))
                first = kept[-1].stop
        frames = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        slices = [self.annotation_rows(row) for row in frames]
        annotations = np.concatenate([np.zeros(0, np.int64), *(np.arange(s.start, s.stop) for s in slices)])
        columns = {
            name: self.columns[name][annotations if column.of_annotations else frames]
            for name, column in self.own_columns.items()
        }
        return replace(self, scene_rows=tuple(kept), columns=columns)


def text_column(texts: Iterable[str]) -> np.ndarray:
    """Texts as one fixed-width array of UTF-8 bytes: no Python object, so no reference count, for each."""
    return np.array([text.encode() for text in texts], dtype="S")


def check_scene_names(wanted: Iterable[str], known: Sequence[str], where: str) -> None:
    """Raise SampleUnknown when a wanted scene is not known, with the closest names for each."""
    missing = sorted(set(wanted) - set(known))
    if not missing:
        return
    lines = []
    for name in missing:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        lines.append(f"{name}" + (f"  (did you mean {', '.join(close)}?)" if close else ""))
    examples = ", ".join(sorted(known)[:10]) + (", ..." if len(known) > 10 else "")
    raise SampleUnknown(
        f"no such scene in {where}:\n{shown(lines)}\nIt has {len(known)} scenes: {examples}. Name scenes from"
        " this list, or another split."
    )


def _check_columns(
    columns: Mapping[str, np.ndarray], own: Mapping[str, Column], scene_rows: Sequence[SceneRows]
) -> None:
    frames = sum(scene.stop - scene.first for scene in scene_rows)
    counts = columns.get("annotation_count")
    annotations = int(counts.sum()) if counts is not None else 0
    faults = []
    for name, column in own.items():
        array = columns.get(name)
        expected = (annotations if column.of_annotations else frames, *column.row_shape)
        if array is None:
            faults.append(f"{name}: missing")
        elif array.shape != expected:
            faults.append(f"{name}: expected shape {expected}, got {array.shape}")
        elif array.dtype.kind != np.dtype(column.dtype).kind:
            faults.append(f"{name}: expected dtype {column.dtype}, got {array.dtype}")
    faults += [f"{name}: unknown column" for name in columns if name not in own]
    if [s.first for s in scene_rows] != [0, *(s.stop for s in scene_rows)][: len(scene_rows)]:
        faults.append("scene_rows: scenes do not follow each other without holes")
    if faults:
        raise ShapeMismatch(f"the columns of the index do not fit together:\n{shown(faults)}")
