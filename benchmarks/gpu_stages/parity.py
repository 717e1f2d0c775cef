"""Whether a GPU computes what the CPU computes: every output of every family, small and at full size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import torch
from mmengine.config import Config
from torch import Tensor

from camera3d.detectors.builder import load_config
from camera3d.fixed_numerics import fixed_numerics
from camera3d.ops import op_backend, use_backend
from camera3d.ops.backend import DCN, MSDA
from demo.rig import full_size_inputs
from gpu_stages.materials import TEACHERS, published, random_detector, shrunken
from gpu_stages.stage import Context, Measurement, Row

# Of the largest value of an output, single precision through a hundred layers.
ALIKE = 1e-3


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    for full in (False,) if context.tiny else (False, True):
        for name in TEACHERS:
            config = load_config(published(name)) if full else shrunken(published(name))
            frames = 1 if full else 2
            for backend in backends(context.device):
                label = f"{name}{', full size' if full else ', small'}, {backend}"
                yield (
                    label,
                    lambda config=config, frames=frames, backend=backend: rows(
                        config, frames, backend, context.device
                    ),
                )
        on_the_cpu.cache_clear()


def backends(device: str) -> list[str]:
    """Implementations of the operators that run there."""
    compiled = all(op_backend(op, device) == "mmcv" for op in (MSDA, DCN))
    return ["pytorch", "mmcv"] if compiled else ["pytorch"]


def rows(config: Config, frames: int, backend: str, device: str) -> Row:
    """How far the outputs of the last of some frames are from those on the CPU."""
    wanted = on_the_cpu(config, frames)
    with fixed_numerics(), use_backend(backend):
        found = outputs(config, frames, device)
    errors = {name: relative(found[name], value) for name, value in wanted.items()}
    worst = max(errors, key=errors.__getitem__)
    return {
        "frames": frames,
        "outputs": len(errors),
        "largest difference": errors[worst],
        "in": worst,
        "alike": errors[worst] <= ALIKE,
    }


@cache
def on_the_cpu(config: Config, frames: int) -> dict[str, Tensor]:
    """The outputs to be met."""
    with fixed_numerics(len(os.sched_getaffinity(0))), use_backend("pytorch"):
        return outputs(config, frames, "cpu")


def outputs(config: Config, frames: int, device: str) -> dict[str, Tensor]:
    """Of the last of so many frames of a scene, and what is decoded from them; on the CPU."""
    detector = random_detector(config).to(device)
    image_hw = tuple(config.inputs.pad_hw)
    given = full_size_inputs(image_hw, pixels_wide=image_hw[1])
    inputs = {name: given[name].to(device) for name in detector.inputs}
    state = None
    with torch.inference_mode():
        for _ in range(frames):
            found, state = detector.encode(inputs, state)
        (decoded,) = detector.decode(found)
    return {name: value.cpu() for name, value in found.items()} | {"scores": decoded.scores.cpu()}


def relative(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, over the largest value; infinite where a shape or a number is wrong."""
    if found.shape != wanted.shape or not wanted.numel():
        return 0.0 if found.shape == wanted.shape else float("inf")
    difference = (found.double() - wanted.double()).abs().max()
    if not difference.isfinite():
        return float("inf")
    return float(difference / wanted.double().abs().max().clamp(min=1e-12))
