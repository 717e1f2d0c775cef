"""Frames a second of `extract/dump_teacher.py`, by profile, images read and store written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from extract import report as reporting
from extract.engine import DumpReport
from gpu_stages.materials import TEACHERS, Materials
from gpu_stages.stage import Context, Measurement, Row

PROFILES = ("exact", "focal", "compact")


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    materials = Materials(context)
    yield "scenes", lambda: scenes(materials)
    for name in TEACHERS[:1] if context.tiny else TEACHERS:
        for profile in PROFILES[:2] if context.tiny else PROFILES:
            yield f"{name}, {profile}", lambda name=name, profile=profile: dumped(materials, name, profile)


def scenes(materials: Materials) -> Row:
    """What is dumped."""
    start = time.perf_counter()
    index = materials.index
    sizes = ", ".join(f"{width}×{height}" for height, width in index.image_sizes)
    return {
        "scenes": len(index.scene_names),
        "frames": len(index),
        "images": sizes,
        "s to have them": time.perf_counter() - start,
    }


def dumped(materials: Materials, teacher: str, profile: str) -> Row:
    """One dump; its store is not kept."""
    cuda, index = materials.context.device == "cuda", materials.index
    materials.checkpoint(teacher)
    out = materials.context.work / "dumps" / f"{teacher}-{profile}.zarr"
    shutil.rmtree(out, ignore_errors=True)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    reports: list[DumpReport] = []
    start = time.perf_counter()
    with kept(reports):
        materials.dump(teacher, profile, out, scenes=tuple(index.scene_names))
    seconds = time.perf_counter() - start
    nbytes = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    shutil.rmtree(out)
    (report,) = reports
    return {
        "frames a second": report.samples / report.seconds,
        "ms a frame": 1e3 * report.seconds / report.samples,
        "of it inside the detector": report.forward_seconds / report.seconds,
        "s of the command": seconds,
        "MB a frame on the disk": nbytes / report.samples / 1e6,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
    }


@contextmanager
def kept(reports: list[DumpReport]) -> Iterator[None]:
    """Gathers the reports that the command makes its summaries of."""
    original = reporting.summary

    def summary(found: DumpReport, *rest: object) -> str:
        reports.append(found)
        return original(found, *rest)

    with mock.patch.object(reporting, "summary", summary):
        yield
