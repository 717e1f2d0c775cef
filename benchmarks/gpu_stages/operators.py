"""The sampling operators: every implementation's time, and whether they agree."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import ops
import torch
from torch import Tensor

from gpu_stages.stage import Context, Measurement, Row

OURS, THEIRS = "pytorch (weighted rows)", "mmcv's kernel"
REPEATS = 10


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage."""
    torch.manual_seed(0)
    for case in tiny_cases() if context.tiny else ops.cases(context.device):
        yield case.name, lambda case=case: rows(case, 1 if context.tiny else REPEATS, context.device)


def tiny_cases() -> Iterator[ops.Case]:
    """One of each kind."""
    yield ops.attention_case("attention", [(8, 10), (4, 5)], 2, 20, 4, "cpu")
    yield ops.attention_case("attention, backward", [(8, 10)], 1, 20, 4, "cpu", backward=True)
    yield ops.convolution_case("DCNv2", 1, 8, (8, 10), 1, "cpu")
    yield ops.convolution_case("DCNv2, backward", 1, 8, (8, 10), 1, "cpu", backward=True)


def rows(case: ops.Case, repeats: int, device: str) -> list[Row]:
    """One an implementation."""
    times = ops.measure(case, repeats, device)
    ours = statistics.median(times[OURS])
    wanted = _tensors(case.implementations[OURS]())
    found = []
    for name, milliseconds in times.items():
        median = statistics.median(milliseconds)
        alike = name in (OURS, THEIRS)
        difference = _difference(_tensors(case.implementations[name]()), wanted) if alike else None
        found.append(
            {
                "implementation": name,
                "median ms": median,
                "min ms": min(milliseconds),
                "median over ours": median / ours,
                "largest difference from ours": difference,
            }
        )
    return found


def _tensors(result: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Over the largest value, of the output or of any gradient."""
    return max(
        float((own.reshape(other.shape) - other).abs().max() / other.abs().max().clamp(min=1e-12))
        for own, other in zip(found, wanted, strict=True)
    )
