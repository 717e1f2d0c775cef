"""Everything of a dump but the dump: what would be written, whether it can be, and nothing written."""

from __future__ import annotations

import os

from cache_schema.disk_room import free_nbytes, megabytes, missing_nbytes
from cache_schema.errors import NotWritable
from cache_schema.storage import S3Path
from camera3d.fixed_numerics import fixed_numerics
from extract.run import DumpOptions, PreparedDump, check_options, chosen_index, prepared


def dry_run(options: DumpOptions) -> str:
    """What a dump with these options would do.

    Raises:
        NotWritable: the folder cannot be written to, or its disk has no room for what the store lacks.
        CacheError, Camera3DError: as the dump itself would.
    """
    check_options(options)
    index = chosen_index(options)
    with fixed_numerics(options.threads) as threads:
        ready = prepared(options, index, threads)
    room = require_room(ready)
    spec, weights = ready.spec, options.checkpoint or f"UNTRAINED, seed {options.seed}"
    rows = [
        ("store", f"{ready.store}, profile {spec.profile}"),
        ("teacher", f"{spec.teacher.detector} ({weights})"),
        ("device", str(ready.device)),
        ("samples", f"{sum(ready.planned.values()):,} in {len(ready.planned):,} scenes"),
        (
            "this dump",
            f"{len(ready.todo):,} samples in {len(ready.todo.scene_rows):,} scenes, images checked",
        ),
        *((array.name, f"{array.dtype} {'×'.join(map(str, array.shape))}") for array in spec.stored_arrays),
        ("bytes", room),
    ]
    return "\n".join([*aligned_pairs(rows), "dry run: nothing was written"])


def require_room(ready: PreparedDump) -> str:
    """Bytes that the whole store still lacks, and what there is. Raises NotWritable."""
    store, spec = ready.store, ready.spec
    needed = missing_nbytes(store, spec, ready.planned)
    # Arrays without a fixed length are as long as what the teacher sees.
    fixed = sum(array.bytes_per_sample for array in spec.stored_arrays if not array.ragged)
    least = needed * fixed // spec.bytes_per_sample
    told = f"{megabytes(least)} to {megabytes(needed)} to come"
    if isinstance(store, S3Path):
        return f"{told}; room in the bucket is not known"
    there = next(folder for folder in (store.absolute(), *store.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise NotWritable(f"{there} cannot be written to: give another --out, or make it writable")
    free = free_nbytes(store)
    if least > free:
        raise NotWritable(
            f"{store} lacks {megabytes(least)} at least, and its disk has {megabytes(free)}: make room, or"
            " take --profile compact or focal, or fewer --arrays"
        )
    doubt = "; MAY NOT FIT, how much is kept depends on the scenes" if needed > free else ""
    return f"{told}, {megabytes(free)} free{doubt}"


def aligned_pairs(rows: list[tuple[str, str]]) -> list[str]:
    """Two columns of text."""
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {value}" for name, value in rows]
