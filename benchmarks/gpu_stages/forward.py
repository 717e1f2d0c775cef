"""Frames a second and peak memory of every full-size detector, in every precision; no images are read."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from camera3d.detectors import Detector
from camera3d.detectors.builder import load_config
from demo.rig import full_size_inputs
from gpu_stages.materials import TEACHERS, Materials, random_detector
from gpu_stages.stage import Context, Measurement, Row

STUDENTS = ("bevformer_small", "bevformer_tiny", "detr3d_r50")
SECONDS, LEAST, MOST = 2.0, 3, 30  # of a measurement: for so long, but so many frames


@contextlib.contextmanager
def single(tf32: bool) -> Iterator[None]:
    """Single precision: full, or with TF32 in products and convolutions."""
    switches = [(torch.backends.cuda.matmul, "allow_tf32"), (torch.backends.cudnn, "allow_tf32")]
    before = [getattr(where, name) for where, name in switches]
    try:
        for where, name in switches:
            setattr(where, name, tf32)
        yield
    finally:
        for (where, name), value in zip(switches, before, strict=True):
            setattr(where, name, value)


def precisions(device: str) -> dict[str, Callable[[], AbstractContextManager]]:
    """By name, what to run a forward pass in."""
    bf16 = {"bf16": lambda: torch.autocast(device, dtype=torch.bfloat16)}
    if device == "cpu":
        return {"fp32": lambda: single(False)} | bf16
    return {
        "fp32": lambda: single(False),
        "TF32": lambda: single(True),
        "fp16": lambda: torch.autocast(device, dtype=torch.float16),
    } | bf16


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    materials = Materials(context)
    for name in (*TEACHERS, *(() if context.tiny else STUDENTS)):
        config = load_config(materials.config(name))
        detector = random_detector(config).to(context.device)
        image_hw = tuple(config.inputs.pad_hw)
        given = full_size_inputs(image_hw, pixels_wide=image_hw[1])
        inputs = {key: given[key].to(context.device) for key in detector.inputs}
        for precision, entered in precisions(context.device).items():
            yield f"{name}, {precision}", lambda d=detector, i=inputs, e=entered: frames(d, i, e, context)
        del detector


def frames(
    detector: Detector,
    inputs: Mapping[str, Tensor],
    entered: Callable[[], AbstractContextManager],
    context: Context,
) -> Row:
    """A scene's frames one after the other, the state handed on."""
    cuda, times, state = context.device == "cuda", [], None
    least, most = (1, 1) if context.tiny else (LEAST, MOST)
    with torch.inference_mode(), entered():
        for _ in range(1 if context.tiny else 2):
            outputs, state = detector.encode(inputs, state)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        while len(times) < least or (len(times) < most and time.perf_counter() - begin < SECONDS):
            start = time.perf_counter()
            outputs, state = detector.encode(inputs, state)
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    finite = all(bool(value.isfinite().all()) for value in outputs.values() if value.is_floating_point())
    median = statistics.median(times)
    return {
        "frames a second": 1 / median,
        "ms": 1e3 * median,
        "min ms": 1e3 * min(times),
        "max ms": 1e3 * max(times),
        "peak GB": torch.cuda.max_memory_allocated() / 1e9 if cuda else None,
        "finite": finite,
    }
