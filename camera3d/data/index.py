"""The index of a split: everything about its keyframes but the pixels, without the devkit.

The facts live in a few numpy arrays ("columns"), one row a frame or one row an annotation, and a `Frame` is
cut from them when it is asked for. A data worker therefore holds a few tens of megabytes that the operating
system shares between processes, and never the devkit's tables of Python objects, whose reference counts
would make every worker copy them.

Order: scenes by the time of their first frame, frames of a scene by time. The official loader sorts all
frames of a split by time; the two orders agree wherever scenes do not overlap in time.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from camera3d.data.names import CAMERA_NAMES, CLASS_NAMES
from camera3d.errors import SampleUnknown, ShapeMismatch, shown
from camera3d.geometry import Float64, rigid_transform


@dataclass(frozen=True, kw_only=True)
class Column:
    """One array of the index: dtype ("S" is UTF-8 text of any width) and the shape of one row."""

    dtype: str
    row_shape: tuple[int, ...] = ()
    of_annotations: bool = False


COLUMNS: Mapping[str, Column] = {
    "sample_token": Column(dtype="S"),
    "timestamp_us": Column(dtype="int64"),
    "image_paths": Column(dtype="S", row_shape=(len(CAMERA_NAMES),)),
    "image_hw": Column(dtype="int64", row_shape=(2,)),
    "lidar2img": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 4, 4)),
    # Poses are x, y, z and a quaternion, w first: half of what matrices would take.
    "intrinsics": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 3, 3)),
    "camera_to_ego": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 7)),
    "camera_ego_to_global": Column(dtype="float64", row_shape=(len(CAMERA_NAMES), 7)),
    "lidar_to_ego": Column(dtype="float64", row_shape=(7,)),
    "lidar_path": Column(dtype="S"),
    "ego_translation": Column(dtype="float64", row_shape=(3,)),
    "ego_rotation": Column(dtype="float64", row_shape=(4,)),
    "can_bus_messages": Column(dtype="float64", row_shape=(9,)),
    "can_bus_present": Column(dtype="bool"),
    "annotation_count": Column(dtype="int64"),
    "annotation_token": Column(dtype="S", of_annotations=True),
    "gt_boxes": Column(dtype="float64", row_shape=(9,), of_annotations=True),
    "gt_labels": Column(dtype="int64", of_annotations=True),
    "num_lidar_pts": Column(dtype="int64", of_annotations=True),
    "valid": Column(dtype="bool", of_annotations=True),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One keyframe. The arrays are read-only views into the index: copy before writing."""

    sample_token: str
    scene_token: str
    scene_name: str
    timestamp_us: int
    image_paths: tuple[str, ...]  # relative to the dataroot, in the order of CAMERA_NAMES
    image_hw: tuple[int, int]  # native height and width in pixels, the same for the six cameras
    lidar2img: Float64  # (6, 4, 4), at native resolution
    intrinsics: Float64  # (6, 3, 3), at native resolution
    camera_to_ego: Float64  # (6, 7) poses: x y z in metres, then a quaternion, w first
    camera_ego_to_global: Float64  # (6, 7) poses of the ego when each camera fired
    lidar_to_ego: Float64  # (7,) pose
    lidar_path: str  # the sweep of LIDAR_TOP, relative to the dataroot
    ego_translation: Float64  # (3,) metres, global frame, when LIDAR_TOP fired
    ego_rotation: Float64  # (4,) quaternion, w first, ego to global, when LIDAR_TOP fired
    can_bus_messages: Float64  # (9,) accel, rotation_rate, vel; zeros when can_bus_present is False
    can_bus_present: bool
    gt_boxes: Float64  # (n, 9) LiDAR frame: gravity centre x y z, l w h, yaw right-handed, vx vy (may be NaN)
    gt_labels: np.ndarray  # (n,) int64, positions in class_names
    annotation_tokens: tuple[str, ...]
    num_lidar_pts: np.ndarray  # (n,) int64
    valid: np.ndarray  # (n,) bool: some LiDAR or radar point hits the box; official training drops the rest
    class_names: tuple[str, ...] = CLASS_NAMES

    @property
    def ego_pose(self) -> Float64:
        """Ego to global when LIDAR_TOP fired, (4, 4)."""
        return rigid_transform(self.ego_rotation, self.ego_translation)


class FrameRange(Sequence[Frame]):
    """Consecutive frames of an index, made when they are asked for."""

    def __init__(self, index: NuScenesIndex, rows: range):
        self._index, self._rows = index, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item):
        if isinstance(item, slice):
            return FrameRange(self._index, self._rows[item])
        return self._index.frame(self._rows[item])

    def __iter__(self) -> Iterator[Frame]:
        return (self._index.frame(row) for row in self._rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One scene: its frames in time order."""

    name: str
    token: str
    frames: Sequence[Frame]


@dataclass(frozen=True, kw_only=True)
class SceneRows:
    """Which rows of the frame columns a scene holds: [first, stop)."""

    name: str
    token: str
    first: int
    stop: int


@dataclass(frozen=True, kw_only=True, eq=False)
class NuScenesIndex:
    """The keyframes of one split of one version.

    Args:
        columns: one array for each entry of COLUMNS; checked here, all faults reported together.
        scene_rows: the scenes in order; together they cover every frame exactly once.
        notes: what the user was warned of when the index was built, so that a kept index can warn again.

    Raises ShapeMismatch when a column is missing, misshapen or of another length than the rest.
    """

    version: str
    split: str
    scene_rows: tuple[SceneRows, ...]
    columns: Mapping[str, np.ndarray] = field(repr=False)
    class_names: tuple[str, ...] = CLASS_NAMES
    camera_names: tuple[str, ...] = CAMERA_NAMES
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns = dict(self.columns)
        _check_columns(columns, self.scene_rows)
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

    def __getitem__(self, row: int) -> Frame:
        if not -len(self) <= row < len(self):
            raise IndexError(f"frame {row} of an index of {len(self)}")
        return self.frame(row % len(self))

    def __iter__(self) -> Iterator[Frame]:
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

    def frame(self, row: int) -> Frame:
        """The frame in row `row`, 0 ≤ row < len(self)."""
        c, at, scene = self.columns, self.annotation_rows(row), self.scene_of_row(row)
        return Frame(
            sample_token=c["sample_token"][row].decode(),
            scene_token=scene.token,
            scene_name=scene.name,
            timestamp_us=int(c["timestamp_us"][row]),
            image_paths=tuple(path.decode() for path in c["image_paths"][row].tolist()),
            image_hw=tuple(c["image_hw"][row].tolist()),
            lidar2img=c["lidar2img"][row],
            intrinsics=c["intrinsics"][row],
            camera_to_ego=c["camera_to_ego"][row],
            camera_ego_to_global=c["camera_ego_to_global"][row],
            lidar_to_ego=c["lidar_to_ego"][row],
            lidar_path=c["lidar_path"][row].decode(),
            ego_translation=c["ego_translation"][row],
            ego_rotation=c["ego_rotation"][row],
            can_bus_messages=c["can_bus_messages"][row],
            can_bus_present=bool(c["can_bus_present"][row]),
            gt_boxes=c["gt_boxes"][at],
            gt_labels=c["gt_labels"][at],
            annotation_tokens=tuple(token.decode() for token in c["annotation_token"][at].tolist()),
            num_lidar_pts=c["num_lidar_pts"][at],
            valid=c["valid"][at],
            class_names=self.class_names,
        )

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

    def by_token(self, sample_token: str) -> Frame:
        """The frame of a sample. Raises SampleUnknown."""
        return self.frame(self.row_of(sample_token))

    def select(self, scenes: Iterable[str]) -> NuScenesIndex:
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
            for name, column in COLUMNS.items()
        }
        return replace(self, scene_rows=tuple(kept), columns=columns)

    def save(self, path: str | Path) -> None:
        """Write the index, whole or not at all."""
        from camera3d.data.index_file import write_index

        write_index(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> NuScenesIndex:
        """Read what `save` wrote; every number comes back exactly. Raises ConfigInvalid."""
        from camera3d.data.index_file import read_index

        return read_index(Path(path))


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


def _check_columns(columns: Mapping[str, np.ndarray], scene_rows: Sequence[SceneRows]) -> None:
    frames = sum(scene.stop - scene.first for scene in scene_rows)
    counts = columns.get("annotation_count")
    annotations = int(counts.sum()) if counts is not None else 0
    faults = []
    for name, column in COLUMNS.items():
        array = columns.get(name)
        expected = (annotations if column.of_annotations else frames, *column.row_shape)
        if array is None:
            faults.append(f"{name}: missing")
        elif array.shape != expected:
            faults.append(f"{name}: expected shape {expected}, got {array.shape}")
        elif array.dtype.kind != np.dtype(column.dtype).kind:
            faults.append(f"{name}: expected dtype {column.dtype}, got {array.dtype}")
    faults += [f"{name}: unknown column" for name in columns if name not in COLUMNS]
    if [s.first for s in scene_rows] != [0, *(s.stop for s in scene_rows)][: len(scene_rows)]:
        faults.append("scene_rows: scenes do not follow each other without holes")
    if faults:
        raise ShapeMismatch(f"the columns of the index do not fit together:\n{shown(faults)}")
