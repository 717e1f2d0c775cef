"""How fast is each implementation of the two sampling operators, at the sizes of BEVFormer-Base?

Every case runs all its implementations in turn, several times over, so that a change in the machine's load
meets them all. Speeds are relative to the implementation in the first line of the case: by medians, and by
minima, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from camera3d.ops import (
    describe_backends,
    modulated_deform_conv2d,
    multi_scale_deformable_attention,
    op_backend,
    use_backend,
)
from camera3d.ops.backend import DCN, MSDA, mmcv_function

RESULTS = Path(__file__).parent / "results" / "ops.md"
EXAMPLE = "example:\n  python benchmarks/ops.py --repeats 5 --threads 2"

SPATIAL_LEVELS = [(116, 200), (58, 100), (29, 50), (15, 25)]
BEV = [(200, 200)]


@dataclass(frozen=True)
class Case:
    """One line of the question: named implementations of the same computation on the same tensors."""

    name: str
    implementations: dict[str, Callable[[], object]]


def attention_inputs(maps, batch, queries, points, device) -> tuple[Tensor, Tensor, Tensor]:
    """Queries that walk over the map row by row and look around themselves, as a BEV grid does."""
    side = int(queries**0.5) + 1
    axis = torch.linspace(0, 1, side)
    around = torch.cartesian_prod(axis, axis)[:queries].flip(-1).view(1, queries, 1, 1, 1, 2)
    lead = (batch, queries, 8, len(maps), points)
    locations = around + 0.03 * torch.randn(*lead, 2)
    attention = torch.rand(lead).flatten(-2).softmax(-1).view(lead)
    value = torch.randn(batch, sum(h * w for h, w in maps), 8, 32)
    return value.to(device), locations.to(device), attention.to(device)


def attention_case(name, maps, batch, queries, points, device, backward=False) -> Case:
    inputs = attention_inputs(maps, batch, queries, points, device)
    value, locations, attention = (t.requires_grad_(backward) for t in inputs)
    run = with_backward if backward else without_gradient

    def ours(backend):
        def call():
            with use_backend(backend):
                return multi_scale_deformable_attention(value, maps, locations, attention)

        return run(call, inputs)

    implementations = {}
    if mmcv_function(MSDA):
        from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

        implementations["mmcv's PyTorch form (grid_sample)"] = run(
            lambda: multi_scale_deformable_attn_pytorch(value, maps, locations, attention), inputs
        )
    if op_backend(MSDA, device) == "mmcv":
        implementations["mmcv's kernel"] = ours("mmcv")
    implementations["pytorch (weighted rows)"] = ours("pytorch")
    return Case(name, implementations)


def convolution_case(name, batch, channels, size, stride, device, backward=False) -> Case:
    x = torch.randn(batch, channels, *size)
    out = [(length - 1) // stride + 1 for length in size]
    offset, modulation = torch.randn(batch, 18, *out), torch.rand(batch, 9, *out)
    weight = 0.02 * torch.randn(channels, channels, 3, 3)
    inputs = [t.to(device).requires_grad_(backward) for t in (x, offset, modulation, weight)]
    x, offset, modulation, weight = inputs
    run = with_backward if backward else without_gradient

    def ours(backend, image=x):
        def call():
            with use_backend(backend):
                return modulated_deform_conv2d(image, offset, modulation, weight, stride=stride, padding=1)

        return run(call, inputs)

    implementations = {"mmcv's kernel": ours("mmcv")} if mmcv_function(DCN) else {}
    implementations["nine grid_sample calls, one product"] = run(
        lambda: nine_grid_samples(x, offset, modulation, weight, stride), inputs
    )
    implementations["pytorch (weighted rows)"] = ours("pytorch")
    if not backward:
        channels_last = x.contiguous(memory_format=torch.channels_last)
        implementations["pytorch, channels-last input"] = ours("pytorch", channels_last)
    implementations["(plain 3×3 conv2d, for scale)"] = run(
        lambda: F.conv2d(x, weight, stride=stride, padding=1), [x, weight]
    )
    return Case(name, implementations)


def nine_grid_samples(x: Tensor, offset: Tensor, modulation: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The obvious PyTorch form, for comparison: 3×3, padding 1, one group."""
    height, width = x.shape[2:]
    out_h, out_w = offset.shape[2:]
    rows = torch.arange(out_h, device=x.device)[:, None] * stride - 1
    columns = torch.arange(out_w, device=x.device) * stride - 1
    samples = []
    for tap in range(9):
        y = offset[:, 2 * tap] + rows + tap // 3
        along = offset[:, 2 * tap + 1] + columns + tap % 3
        grid = torch.stack([(2 * along + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        samples.append(F.grid_sample(x, grid, align_corners=False) * modulation[:, tap : tap + 1])
    stacked = torch.stack(samples, dim=2).flatten(1, 2).flatten(2)
    return (weight.flatten(1) @ stacked).view(x.shape[0], -1, out_h, out_w)


def without_gradient(call: Callable[[], Tensor], _inputs) -> Callable[[], object]:
    return torch.no_grad()(call)


def with_backward(call: Callable[[], Tensor], inputs) -> Callable[[], object]:
    return lambda: torch.autograd.grad(call().square().sum(), inputs)


def cases(device: str) -> Iterator[Case]:
    """One at a time: the tensors of a case are freed before the next."""
    yield attention_case(
        "spatial cross-attention, 6 × 9000 queries, 4 levels, 8 points", SPATIAL_LEVELS, 6, 9000, 8, device
    )
    yield attention_case("temporal self-attention, 2 × 40000 queries, 4 points", BEV, 2, 40000, 4, device)
    yield attention_case("decoder cross-attention, 900 queries, 4 points", BEV, 1, 900, 4, device)
    yield convolution_case("DCNv2 6 × 256 × 58 × 100 (23 layers)", 6, 256, (58, 100), 1, device)
    yield convolution_case("DCNv2 6 × 256 × 116 × 200, stride 2", 6, 256, (116, 200), 2, device)
    yield convolution_case("DCNv2 6 × 512 × 29 × 50 (3 layers)", 6, 512, (29, 50), 1, device)
    name = "forward and backward: temporal self-attention, 1 × 10000 queries"
    yield attention_case(name, [(100, 100)], 1, 10000, 4, device, backward=True)
    name = "forward and backward: DCNv2 1 × 256 × 29 × 50"
    yield convolution_case(name, 1, 256, (29, 50), 1, device, backward=True)


def measure(case: Case, repeats: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of every repeat, by implementation; one uncounted run first."""
    times = {name: [] for name in case.implementations}
    for repeat in range(repeats + 1):
        for name, run in case.implementations.items():
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            if repeat:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def table(case: Case, times: dict[str, list[float]]) -> str:
    lines = [
        f"### {case.name}",
        "",
        "| implementation | median ms | min–max ms | speed, medians | speed, minima |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    first = next(iter(times.values()))
    for name, values in times.items():
        by_median = statistics.median(first) / statistics.median(values)
        by_minimum = min(first) / min(values)
        spread = f"{min(values):.1f}–{max(values):.1f}"
        lines.append(
            f"| {name} | {statistics.median(values):.1f} | {spread} | ×{by_median:.2f} | ×{by_minimum:.2f} |"
        )
    return "\n".join(lines) + "\n"


def header(device: str, repeats: int) -> str:
    hardware = torch.cuda.get_device_name() if device == "cuda" else cpu_model()
    backends = ", ".join(f"{op}: {backend}" for op, backend in describe_backends(device).items())
    return (
        "# Sampling operators\n\n"
        f"Written by `benchmarks/ops.py`, {datetime.date.today()}, commit {commit()}.\n"
        f"{hardware}, {torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, float32, {repeats} repeats after one uncounted run.\n"
        f"Defaults on this device: {backends}.\n"
        "The machine was shared: trust the ratios and the minima, not a single median.\n"
    )


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "none yet"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="run the cases whose name contains this; writes no file")
    parser.add_argument("--output", type=Path, default=RESULTS, help="default: %(default)s")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)

    parts = [header(args.device, args.repeats)]
    print(parts[0], flush=True)
    for case in cases(args.device):
        if args.only.lower() in case.name.lower():
            parts.append(table(case, measure(case, args.repeats, args.device)))
            print(parts[-1], flush=True)
    if not args.only:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("\n".join(parts))
        print(f"written to {args.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
