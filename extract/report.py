"""The summary that a dump prints: what was written, how fast, how many bytes."""

from __future__ import annotations

from cache_schema.manifest import SceneManifest, read_manifest
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath
from cache_schema.store_root import SCENES_GROUP, published_scenes, read_plan
from cache_schema.wording import counted
from extract.engine import DumpReport


def summary(report: DumpReport, spec: StoreSpec, store: StorePath) -> str:
    """What to print: the whole table from the process that completed the store, or was the only one."""
    if not report.scenes and not report.scenes_missing:
        return f"{store} is complete: nothing to do; scenes in it: {report.scenes_present}"
    if report.sealed or report.shard == "1/1":
        return "\n".join([*array_table(spec, store), "", *totals(report, spec, store)])
    missing = f"{counted(report.scenes_missing, 'scene')} of other parts missing"
    rest = missing if report.scenes_missing else "the store is complete"
    done = f"{counted(report.samples, 'sample')} in {counted(report.scenes, 'scene')}"
    return f"part {report.shard} of {store}: {done}; {rest}"


def totals(report: DumpReport, spec: StoreSpec, store: StorePath) -> list[str]:
    """What was run, how much of it, how fast."""
    rate = report.samples / report.seconds if report.samples else 0.0
    share = report.forward_seconds / report.seconds if report.samples else 0.0
    teacher = "trained" if spec.teacher.trained else f"UNTRAINED, seed {spec.teacher.random_seed}"
    part = "" if report.shard == "1/1" else f" by this process, part {report.shard}"
    missing = f" ({counted(report.scenes_missing, 'scene')} missing)" if report.scenes_missing else ""
    present = f"; {counted(report.scenes_present, 'scene')} already there" if report.scenes_present else ""
    return [
        f"store     {store}{missing}",
        f"teacher   {spec.teacher.detector} ({teacher})",
        f"samples   {report.samples:,} in {counted(report.scenes, 'scene')}{part}{present}",
        f"seconds   {report.seconds:.1f}, of which forward passes {share:.1%}",
        f"FPS       {rate:.3f} samples/s",
    ]


def array_table(spec: StoreSpec, store: StorePath) -> list[str]:
    """One line an array, then their sum."""
    on_disk = {array.name: array_bytes(store, array.name) for array in spec.stored_arrays}
    rows = [("array", "dtype", "shape of a sample", "MB/sample", "MB on disk")]
    for array in spec.stored_arrays:
        shape = "×".join(map(str, array.shape))
        megabytes = ("≤ " if array.ragged else "") + f"{array.bytes_per_sample / 1e6:.3f}"
        rows.append((array.name, array.dtype, shape, megabytes, f"{on_disk[array.name] / 1e6:.3f}"))
    at_most = "≤ " if any(array.ragged for array in spec.stored_arrays) else ""
    total = f"{at_most}{spec.bytes_per_sample / 1e6:.3f}"
    rows.append(("total", "", "", total, f"{sum(on_disk.values()) / 1e6:.3f}"))
    return aligned(rows)


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns padded to one width: text to the left, the last two columns, numbers, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column >= len(widths) - 2 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def array_bytes(store: StorePath, name: str) -> int:
    """Bytes of one array's files over all published scenes; of its shards alone in an object store."""
    if not isinstance(store, S3Path):
        return sum(file.stat().st_size for file in store.glob(f"scenes/*/{name}/**/*") if file.is_file())
    published = published_scenes(store, read_plan(store))
    scenes = (read_manifest(store / SCENES_GROUP / scene, SceneManifest) for scene in published)
    return sum(sum(r.shard_nbytes) for scene in scenes for r in scene.arrays if r.array.name == name)
