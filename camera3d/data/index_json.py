"""An index as one JSON file: a header, the scenes, and each column as a flat list.

Numbers are written as Python's repr, the shortest text that reads back as the same float64, so a round trip
is exact. JSON has no NaN: the unknown velocities are written as zeros and their rows are listed. The file is
written under a temporary name and renamed, so that a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np

from camera3d.data.index import COLUMNS, NuScenesIndex, SceneRows, text_column
from camera3d.errors import ConfigInvalid, ShapeMismatch

FORMAT = "camera3d.nuscenes_index"
SCHEMA_VERSION = 1


def write_index(index: NuScenesIndex, path: Path) -> None:
    """Write `index` to `path`, atomically; folders on the way are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "version": index.version,
        "split": index.split,
        "class_names": index.class_names,
        "camera_names": index.camera_names,
        "notes": index.notes,
        "scenes": [asdict(scene) for scene in index.scene_rows],
    }
    unknown_velocity = np.isnan(index.columns["gt_boxes"][:, 7:]).any(axis=1)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="ascii") as file:
            # One column at a time, each through the C encoder: json.dump to a file is ten times slower.
            file.write(json.dumps(header, allow_nan=False)[:-1])
            file.write(f',\n"unknown_velocity": {json.dumps(np.flatnonzero(unknown_velocity).tolist())}')
            file.write(',\n"columns": {')
            for position, name in enumerate(COLUMNS):
                array = index.columns[name]
                if name == "gt_boxes":
                    array = array.copy()
                    array[unknown_velocity, 7:] = 0.0
                flat = array.ravel().tolist()
                if array.dtype.kind == "S":
                    flat = [text.decode() for text in flat]
                separator = ",\n" if position else "\n"
                file.write(f'{separator}"{name}": {json.dumps(flat, allow_nan=False)}')
            file.write("\n}}\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_index(path: Path) -> NuScenesIndex:
    """Read an index file.

    Raises ConfigInvalid when the file is not an index, is of another schema, or does not fit together.
    """
    way_out = "Delete the file and build the index again."
    try:
        raw = json.loads(path.read_text(encoding="ascii"))
    except OSError as error:
        raise ConfigInvalid(f"{path}: {error.strerror}. Build the index again.") from error
    except ValueError as error:
        raise ConfigInvalid(f"{path} is not JSON ({error}). {way_out}") from error
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ConfigInvalid(f"{path} is not an index of nuScenes keyframes. {way_out}")
    if raw.get("schema_version") != SCHEMA_VERSION:
        raise ConfigInvalid(
            f"{path} has schema_version {raw.get('schema_version')}, this code reads {SCHEMA_VERSION}."
            f" {way_out}"
        )
    try:
        columns = {}
        for name, column in COLUMNS.items():
            values = raw["columns"].pop(name)
            flat = text_column(values) if column.dtype == "S" else np.array(values, dtype=column.dtype)
            columns[name] = flat.reshape(-1, *column.row_shape)
        columns["gt_boxes"][np.array(raw["unknown_velocity"], dtype=np.int64), 7:] = np.nan
        return NuScenesIndex(
            version=raw["version"],
            split=raw["split"],
            class_names=tuple(raw["class_names"]),
            camera_names=tuple(raw["camera_names"]),
            notes=tuple(raw["notes"]),
            scene_rows=tuple(SceneRows(**scene) for scene in raw["scenes"]),
            columns=columns,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ShapeMismatch) as error:
        raise ConfigInvalid(f"{path} is damaged ({type(error).__name__}: {error}). {way_out}") from error
