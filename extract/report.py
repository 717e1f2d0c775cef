"""The summary that a dump prints: what was written, how fast, how many bytes."""

from __future__ import annotations

from pathlib import Path

from cache_schema.spec import StoreSpec
from extract.engine import DumpReport


def summary(report: DumpReport, spec: StoreSpec, store: Path) -> str:
    """A table in plain text: one line an array, then totals."""
    on_disk = {array.name: array_bytes(store, array.name) for array in spec.arrays}
    rows = [("array", "dtype", "shape of a sample", "MB/sample", "MB on disk")]
    for array in spec.arrays:
        shape = "×".join(map(str, array.shape))
        megabytes = array.bytes_per_sample / 1e6
        rows.append((array.name, array.dtype, shape, f"{megabytes:.3f}", f"{on_disk[array.name] / 1e6:.3f}"))
    total = spec.bytes_per_sample / 1e6
    rows.append(("total", "", "", f"{total:.3f}", f"{sum(on_disk.values()) / 1e6:.3f}"))
    lines = aligned(rows)
    rate = report.samples / report.seconds if report.samples else 0.0
    share = report.forward_seconds / report.seconds if report.samples else 0.0
    teacher = "trained" if spec.teacher.trained else f"UNTRAINED, seed {spec.teacher.random_seed}"
    lines += [
        "",
        f"store     {store}",
        f"teacher   {spec.teacher.detector} ({teacher})",
        f"samples   {report.samples} in {report.scenes} scenes"
        + (f"; {report.scenes_present} scenes were there already" if report.scenes_present else ""),
        f"seconds   {report.seconds:.1f}, of which forward passes {share:.1%}",
        f"FPS       {rate:.3f} samples/s",
    ]
    return "\n".join(lines)


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


def array_bytes(store: Path, name: str) -> int:
    """Bytes of one array's files over all published scenes."""
    return sum(file.stat().st_size for file in store.glob(f"scenes/*/{name}/**/*") if file.is_file())
