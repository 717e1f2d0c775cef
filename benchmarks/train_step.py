"""What a distillation step costs beside a plain student step, with the teacher cached and in the loop.

    python benchmarks/train_step.py --dataroot data/nuscenes --version v1.0-mini --split mini_train \\
        --checkpoint teacher.pth --store exact=exact.zarr compact=compact.zarr focal=focal.zarr

One student and one optimiser for all variants, which take turns: a round is one step of each, preceded by an
untimed one that fills the loader's queue. Writes benchmarks/results/train_step.md (train_step-cuda.md).
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT, markdown_table, publish
from mmengine.config import Config

from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, NuScenesIndex, StreamingFrames, load_or_build_index
from camera3d.detectors import Detector
from camera3d.detectors.builder import build_detector, load_config
from camera3d.detectors.samples import ground_truth
from camera3d.logs import quiet_mmengine
from train.distillers import build_distiller
from train.distillers.config import DistillerConfig
from train.distillers.distiller import Distiller
from train.distillers.fit import compared_maps
from train.engine.data import train_loader
from train.engine.targets import from_store
from train.targets import DistortedLiveSource, LiveSource
from train.targets.description import TeacherDescription

PHASES = ("data wait", "forward", "teacher", "terms", "backward", "optimiser")


@dataclass
class Variant:
    """One row of the table: what is trained, and what it read and took so far."""

    name: str
    model: Distiller | Detector
    batches: Iterator
    seconds: dict[str, list[float]]
    load_seconds: float
    peak_bytes: int = 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", help="distillation configs (default: heatmap and fd3d)")
    parser.add_argument("--dataroot", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--checkpoint", required=True, help="of the teacher, for live and live_fd")
    parser.add_argument("--store", nargs="+", required=True, metavar="PROFILE=PATH")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="of each variant's loader (default 4)")
    parser.add_argument("--queue-length", type=int, help="frames of the student queue (default: the config)")
    parser.add_argument("--without-live", action="store_true", help="leave the teacher in the loop out")
    args = parser.parse_args(argv)

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = ROOT / "configs" / "distill"
    names = ("bevformer_base_to_small_heatmap.py", "bevformer_base_to_small_fd3d.py")
    configs = [load_config(path) for path in args.config or [base / name for name in names]]
    for config in configs:
        config.queue_length = args.queue_length or config.queue_length
    index = load_or_build_index(args.dataroot, args.version, args.split)
    torch.manual_seed(0)
    student = build_detector(configs[0])
    with quiet_mmengine():
        student.init_weights()
    student.to(device).train()
    variants = [Variant("student alone", student, *_batches(configs[0], index, args, []))]
    for config in configs:
        variants += _variants(config, student, index, args, device)

    trained = {id(p): p for v in variants for p in v.model.parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(list(trained.values()), lr=1e-6)
    for number in range(args.rounds):
        for variant in variants:
            print(f"round {number + 1} of {args.rounds}: {variant.name} …", file=sys.stderr)
            _round(variant, optimiser, device)
    before = [row - index.scene_of_row(row).first + 1 for row in range(len(index))]
    _report(variants, configs[0], args, device, statistics.mean(before))
    return 0


def _variants(
    config: Config, student: Detector, index: NuScenesIndex, args: argparse.Namespace, device: torch.device
) -> list[Variant]:
    method = Path(config.filename).stem.rsplit("_", 1)[-1]
    chosen = DistillerConfig.from_config(config)
    found = []
    for pair in args.store:
        profile, path = pair.split("=", 1)
        reader = TargetReader(path)
        if profile == "focal" and any(needs.whole_maps for needs in chosen.needs.values()):
            # What profile focal is not meant for: the divergence over whole maps.
            chosen_here = DistillerConfig(
                terms={n: o for n, o in chosen.terms.items() if not chosen.needs[n].whole_maps},
                areas=chosen.areas,
            )
            label = f"{method} without pv_divergence, {profile}"
        else:
            chosen_here, label = chosen, f"{method}, {profile}"
        setting = from_store(config, chosen_here, student, reader, index)
        model = build_distiller(
            config,
            chosen_here,
            student=student,
            teacher=setting.teacher,
            maps=setting.maps,
            source=setting.source,
        )
        batches = _batches(config, index, args, setting.transforms)
        found.append(Variant(label, model.to(device).train(), *batches))
    if args.without_live:
        return found
    teacher_config = load_config(Path(config.filename).parent / config.teacher)
    detector = build_detector(teacher_config)
    load_official(detector, args.checkpoint)
    detector.to(device)
    teacher = TeacherDescription.of_detector(detector, teacher_config)
    maps = compared_maps(config, chosen, student.output_specs(tuple(config.inputs.pad_hw)), teacher)
    pipeline = ImagePipeline.from_config(teacher_config.inputs)
    sources = {
        "live": LiveSource(detector, StreamingFrames(index, pipeline, args.dataroot)),
        "live_fd": DistortedLiveSource(detector, pipeline.pad_hw),
    }
    for name, source in sources.items():
        model = build_distiller(config, chosen, student=student, teacher=teacher, maps=maps, source=source)
        batches = _batches(config, index, args, [])
        found.append(Variant(f"{method}, {name}", model.to(device).train(), *batches))
    return found


def _batches(
    config: Config, index: NuScenesIndex, args: argparse.Namespace, transforms: list
) -> tuple[Iterator, dict[str, list[float]], float]:
    """An endless loader, no times yet, and the seconds a batch takes a single process (the second one)."""
    loader = train_loader(
        config, index, args.dataroot, batch_size=1, workers=args.workers, seed=0, transforms=transforms
    )
    for _ in range(2):
        start = time.perf_counter()
        loader.collate_fn([loader.dataset[0]])
        load_seconds = time.perf_counter() - start
    # One long epoch over however few frames there are: a loader that starts anew waits for its workers.
    rows = list(itertools.islice(itertools.cycle(range(len(loader.dataset))), 4 * (args.rounds + 1)))
    batches = torch.utils.data.DataLoader(
        loader.dataset,
        batch_size=1,
        sampler=rows,
        num_workers=args.workers,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
        pin_memory=loader.pin_memory,
        prefetch_factor=1 if args.workers else None,
    )
    return iter(batches), {phase: [] for phase in PHASES}, load_seconds


def _round(variant: Variant, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """A step with its phases timed; the next batch is being loaded meanwhile, as in training."""
    if not variant.seconds["forward"]:
        next(variant.batches)
    before = _reset_peak(device)
    clock = _Clock(variant.seconds, device)
    data = next(variant.batches)
    clock.lap("data wait")
    model = variant.model
    data = model.data_preprocessor(data, True)
    inputs, samples, extras = data["inputs"], data["data_samples"], data.get("extras", {})
    student = model.student if isinstance(model, Distiller) else model
    outputs = student.training_outputs(inputs)
    if isinstance(model, Distiller):
        losses = model.detection_losses(outputs, samples)
        clock.lap("forward")
        targets = model.source.targets(inputs, samples, extras)
        clock.lap("teacher")
        areas = model.areas(targets, inputs, samples, extras)
        losses |= model.distillation_losses(outputs, targets, areas)
        clock.lap("terms")
    else:
        losses = model.detection_loss(outputs, ground_truth(samples))
        clock.lap("forward")
        for phase in ("teacher", "terms"):
            variant.seconds[phase].append(0.0)
    sum(losses.values()).backward()
    clock.lap("backward")
    optimiser.step()
    optimiser.zero_grad()
    clock.lap("optimiser")
    variant.peak_bytes = max(variant.peak_bytes, _peak(device) - before)


class _Clock:
    def __init__(self, seconds: dict[str, list[float]], device: torch.device) -> None:
        self.seconds, self.device, self.last = seconds, device, time.perf_counter()

    def lap(self, phase: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[phase].append(now - self.last)
        self.last = now


def _reset_peak(device: torch.device) -> int:
    """Bytes in use now: all variants' weights are, so only what comes on top says something of one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    # Linux: 5 sets the peak of the resident memory back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024


def _report(
    variants: list[Variant],
    config: Config,
    args: argparse.Namespace,
    device: torch.device,
    frames_before: float,
) -> None:
    plain = [sum(times) for times in zip(*variants[0].seconds.values(), strict=True)]
    rows = []
    for variant in variants:
        totals = [sum(times) for times in zip(*variant.seconds.values(), strict=True)]
        ratios = [own / alone for own, alone in zip(totals, plain, strict=True)]
        waits = [wait / total for wait, total in zip(variant.seconds["data wait"], totals, strict=True)]
        rows.append(
            [
                variant.name,
                f"{statistics.median(totals):.2f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                *(f"{statistics.median(variant.seconds[phase]):.2f}" for phase in PHASES),
                f"{statistics.median(waits):.1%}",
                f"{variant.load_seconds:.2f}",
                f"{variant.peak_bytes / 1e9:.1f}",
            ]
        )
    header = ["step", "s", "of the student alone", *PHASES, "waiting", "a worker loads in, s", "on top, GB"]
    body = [
        f"{Path(config.filename).stem.rsplit('_', 1)[0]}, {config.inputs.pad_hw[0]}×{config.inputs.pad_hw[1]}"
        f" images, a queue of {config.queue_length}, one sample a step, {args.rounds} rounds, {args.workers}"
        " workers a loader, warm page cache. Medians; a ratio compares two steps of the same round, with the"
        " spread in brackets. While another variant's step runs, a loader fills up: whether workers keep pace"
        " is the step against the seconds one of them needs for a batch, divided by their number. Memory is"
        " what a step adds to the weights of all variants. A frame of this split costs `live`"
        f" {frames_before:.1f} forward passes on average, as many as its scene has frames up to it; in"
        " nuScenes it is 20.",
        markdown_table(header, rows),
        _verdicts(variants, plain),
    ]
    name = "train_step" if device.type == "cpu" else "train_step-cuda"
    publish(name, "What a training step costs, by where the teacher's outputs come from", "\n\n".join(body))


def _verdicts(variants: list[Variant], plain: list[float]) -> str:
    totals = {v.name: [sum(times) for times in zip(*v.seconds.values(), strict=True)] for v in variants}
    lines = []
    cached = totals.get("heatmap, exact")
    if cached:
        ratio = statistics.median(own / alone for own, alone in zip(cached, plain, strict=True))
        lines.append(_verdict("Cached heatmap step over the plain one", ratio, ratio <= 1.10, "at most 1.10"))
    live = totals.get("heatmap, live_fd")
    if cached and live:
        ratio = statistics.median(slow / quick for slow, quick in zip(live, cached, strict=True))
        lines.append(_verdict("live_fd over the cached step", ratio, ratio >= 3, "at least 3"))
    return "\n".join(f"- {line}" for line in lines)


def _verdict(what: str, ratio: float, met: bool, target: str) -> str:
    return f"{what}: {ratio:.2f}, target {target}: **{'met' if met else 'missed'}**"


if __name__ == "__main__":
    sys.exit(main())
