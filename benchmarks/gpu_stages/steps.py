"""Milliseconds and memory of a training step: alone, from each store, with the teacher in the loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch

from gpu_stages.forward import single
from gpu_stages.materials import Materials
from gpu_stages.stage import Context, Measurement, Row
from gpu_stages.training import ALONE, LIVE, Trainee, trainee

SMALL, SMALL_HEATMAP = "bevformer_base_to_small_fd3d", "bevformer_base_to_small_heatmap"
R50 = "detr3d_r101_to_r50_fd3d"
SECONDS, LEAST, MOST = 1.5, 4, 20  # of a measurement: for so long, but so many steps
LARGEST = 64
# By method and source: the first one's step is what the others are compared with.
ONE_SAMPLE = (
    (SMALL, ALONE, None),
    (SMALL, "exact", None),
    (SMALL, "focal", None),
    (SMALL, LIVE, None),
    (SMALL, "compact", None),
    (SMALL, ALONE, "bf16"),
    (SMALL, "exact", "bf16"),
    (SMALL, ALONE, "TF32"),
    (SMALL, "exact", "TF32"),
    (SMALL, ALONE, "fp16"),
    (SMALL_HEATMAP, "exact", None),
    (R50, ALONE, None),
    (R50, "exact", None),
)
MORE_SAMPLES = ((SMALL, ALONE, None), (SMALL, "exact", None), (SMALL, "exact", "bf16"))
TINY = ((SMALL, ALONE, None), (SMALL, "exact", None), (SMALL, LIVE, None), (R50, "focal", None))


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    materials, alone = Materials(context), {}
    for variant in TINY if context.tiny else ONE_SAMPLE:
        yield label(*variant), lambda variant=variant: one_sample(materials, variant, alone)
    for variant in TINY[1:2] if context.tiny else MORE_SAMPLES:
        yield f"{label(*variant)}, more samples", lambda variant=variant: more_samples(materials, variant)


def label(name: str, source: str, precision: str | None) -> str:
    """Such as "bevformer_base_to_small_fd3d, exact, bf16"."""
    return f"{name}, {source}, {precision or 'fp32'}"


def one_sample(
    materials: Materials, variant: tuple[str, str, str | None], alone: dict[tuple[str, str | None], float]
) -> Row:
    """A step of a single sample, and its ratio to the student alone of this run."""
    name, source, precision = variant
    taught = trainee(materials, name, source, amp(precision))
    with single(precision == "TF32"):
        row = taken(taught, 1, materials.context)
    key = (name.rsplit("_", 1)[0], precision)
    if source == ALONE:
        alone[key] = row["ms a step"]
    ratio = row["ms a step"] / alone[key] if key in alone else None
    return row | {"of the student alone": ratio, "ms to load a sample": 1e3 * taught.load_seconds}


def more_samples(materials: Materials, variant: tuple[str, str, str | None]) -> list[Row]:
    """Twice as many, until the memory does not hold them."""
    name, source, precision = variant
    taught, rows, size = trainee(materials, name, source, amp(precision)), [], 2
    while size <= (2 if materials.context.tiny else LARGEST):
        try:
            with single(precision == "TF32"):
                rows.append(taken(taught, size, materials.context) | {"fits": True})
        except torch.cuda.OutOfMemoryError:
            return [*rows, dict.fromkeys(rows[-1] if rows else ("fits",)) | {"samples": size, "fits": False}]
        size *= 2
    return rows


def amp(precision: str | None) -> str | None:
    """The config's `amp`."""
    return None if precision == "TF32" else precision


def taken(taught: Trainee, size: int, context: Context) -> Row:
    """Steps with so many samples each."""
    cuda, times = context.device == "cuda", []
    batch = taught.batch(size)
    least, most = (1, 1) if context.tiny else (LEAST, MOST)
    losses = [taught.step(batch)["loss"] for _ in range(1 if context.tiny else 2)]
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    while len(times) < least or (len(times) < most and time.perf_counter() - begin < SECONDS):
        start = time.perf_counter()
        losses.append(taught.step(batch)["loss"])
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    median = 1e3 * statistics.median(times)
    return {
        "samples": size,
        "ms a step": median,
        "min ms": 1e3 * min(times),
        "max ms": 1e3 * max(times),
        "samples a second": 1e3 * size / median,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        "first loss": losses[0],
        "last loss": losses[-1],
    }
