"""Whether the same dump has the same bytes again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from cache_schema.reader import TargetReader
from camera3d.ops import describe_backends
from gpu_stages.materials import TEACHERS, Materials
from gpu_stages.stage import Context, Measurement, Row


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    materials = Materials(context)
    for name in TEACHERS[:1] if context.tiny else TEACHERS:
        yield f"{name}, exact", lambda name=name: twice(materials, name)


def twice(materials: Materials, teacher: str) -> Row:
    """Dump a scene again, and compare every file."""
    first, again = materials.store(teacher, "exact"), materials.context.work / "again.zarr"
    shutil.rmtree(again, ignore_errors=True)
    materials.dump(teacher, "exact", again, scenes=tuple(materials.index.scene_names[:1]))
    then, now = digests(first), digests(again)
    differing = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    same = TargetReader(first).digest == TargetReader(again).digest
    shutil.rmtree(again)
    return {
        "operators": ", ".join(sorted(set(describe_backends(materials.context.device).values()))),
        "files": len(then),
        "that differ": len(differing),
        "such as": ", ".join(differing[:3]) or "-",
        "bytes equal": not differing,
        "same digest": same,
    }


def digests(store: Path) -> dict[str, str]:
    """Of every file, by its path in the store."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }
