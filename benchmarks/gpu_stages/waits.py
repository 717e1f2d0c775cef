"""How often the host waits for the device in a training step, and which lines make it wait."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from common import ROOT
from torch.profiler import ProfilerActivity, profile

from gpu_stages.materials import Materials
from gpu_stages.stage import Context, Measurement, Row
from gpu_stages.steps import R50, SMALL
from gpu_stages.training import ALONE, Trainee, trainee

VARIANTS = ((SMALL, "exact"), (SMALL, ALONE), (R50, "exact"))
LINES = 15
# What the profiler calls them: exact names, or how they begin.
COUNTED = {
    "stream waits": ("cudaStreamSynchronize",),
    "device waits": ("cudaDeviceSynchronize", "cudaEventSynchronize"),
    "copies to the host": ("Memcpy DtoH",),
    "copies to the device": ("Memcpy HtoD",),
    "kernels": ("cudaLaunchKernel", "cuLaunchKernel"),
    "numbers read": ("aten::_local_scalar_dense",),
    "nonzero": ("aten::nonzero",),
}


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    materials = Materials(context)
    for name, source in VARIANTS[:1] if context.tiny else VARIANTS:
        taught: list[Trainee] = []  # made by the first that needs it

        def made(name=name, source=source, taught=taught) -> Trainee:
            if not taught:
                taught.append(trainee(materials, name, source))
            return taught[0]

        yield f"{name}, {source}", lambda made=made: counts(made())
        if context.device == "cuda":
            yield f"{name}, {source}, by line", lambda made=made: lines(made())


def counts(taught: Trainee) -> Row:
    """Of one step, after one to warm up. The profiler may add a device wait of its own at the end."""
    cuda, batch = taught.device.type == "cuda", taught.batch(1)
    taught.step(batch)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    if cuda:
        torch.cuda.synchronize()
    with profile(activities=activities) as profiled:
        taught.step(batch)
    found = {event.key: event.count for event in profiled.key_averages()}
    return {
        what: sum(count for key, count in found.items() if key.startswith(names))
        for what, names in COUNTED.items()
    }


def lines(taught: Trainee) -> list[Row]:
    """The lines that waited most often in one step, as torch's debug mode sees them."""
    batch = taught.batch(1)
    taught.step(batch)
    with sync_warnings() as caught:
        taught.step(batch)
    return [{"line": line, "waits": count} for line, count in sites(caught).most_common(LINES)]


@contextlib.contextmanager
def sync_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Every operation that waits warns, once each time."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield caught
        finally:
            torch.cuda.set_sync_debug_mode("default")


def sites(caught: list[warnings.WarningMessage]) -> Counter[str]:
    """How often by file and line, ours without the folder of the checkout."""
    found: Counter[str] = Counter()
    for warning in caught:
        if "synchroniz" in str(warning.message):
            path = Path(warning.filename)
            shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else Path(*path.parts[-3:])
            found[f"{shown}:{warning.lineno}"] += 1
    return found
