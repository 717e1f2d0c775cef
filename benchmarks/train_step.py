"""What a distillation step costs beside a plain student step, with the teacher cached and in the loop.

    python benchmarks/train_step.py --dataroot data/nuscenes --version v1.0-mini --split mini_train \\
        --checkpoint teacher.pth --store exact=exact.zarr compact=compact.zarr focal=focal.zarr

One student and one optimiser for all variants, which take turns: a round is one step of each, preceded by an
untimed one that fills the loader's queue. The student alone, and each method with the first store, take their
history from a queue and from a stream. Writes benchmarks/results/train_step.md (train_step-cuda.md), or what
--name says.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import torch
from common import ROOT, markdown_table, publish
from mmengine.config import Config

from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, NuScenesIndex, StreamingFrames, images, load_or_build_index
from camera3d.detectors import Detector
from camera3d.detectors.builder import build_detector, load_config
from camera3d.detectors.history import History
from camera3d.detectors.samples import ground_truth
from camera3d.logs import quiet_mmengine
from train.distillers import build_distiller
from train.distillers.config import DistillerConfig
from train.distillers.distiller import Distiller
from train.distillers.fit import compared_maps, target_warp
from train.engine.data import train_loader
from train.engine.segments import history_of
from train.engine.targets import from_store
from train.targets import DistortedLiveSource, LiveSource
from train.targets.description import TeacherDescription

PHASES = ("data wait", "forward", "teacher", "terms", "backward", "optimiser")
STREAM = ", stream"
PLAIN = "student alone"


@dataclass
class Variant:
    """One row of the table: what is trained, and what it read and took so far.

    Attributes:
        history: of this row's steps; the student is shared.
        images_read: files that a sample takes.
        cpu_seconds: of all threads of this process, the loader's workers left out.
    """

    name: str
    model: Distiller | Detector
    history: History
    batches: Iterator
    load_seconds: float
    images_read: int
    seconds: dict[str, list[float]] = field(default_factory=lambda: {phase: [] for phase in PHASES})
    cpu_seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    @property
    def totals(self) -> list[float]:
        """Seconds of every step."""
        return [sum(times) for times in zip(*self.seconds.values(), strict=True)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", help="distillation configs (default: heatmap and fd3d)")
    parser.add_argument("--dataroot", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--checkpoint", help="of the teacher, for live and live_fd")
    parser.add_argument("--store", nargs="+", required=True, metavar="PROFILE=PATH")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4, help="of each variant's loader (default 4)")
    parser.add_argument("--queue-length", type=int, help="frames of the student queue (default: the config)")
    parser.add_argument("--without-live", action="store_true", help="leave the teacher in the loop out")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these, and the student alone")
    parser.add_argument("--name", default="train_step", help="of the result (default train_step)")
    args = parser.parse_args(argv)
    if args.checkpoint is None and not args.without_live:
        parser.error("--checkpoint: give the teacher's weights, or --without-live")

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
    variants = [
        Variant(name, student, history_of(one, student), *_batches(one, index, args, []))
        for name, one in _histories(PLAIN, configs[0])
    ]
    for config in configs:
        variants += _variants(config, student, index, args, device)

    unknown = sorted(set(args.rows or ()) - {variant.name for variant in variants})
    if unknown:
        known = "; ".join(variant.name for variant in variants)
        parser.error(f"--rows {'; '.join(unknown)}: no such row. There are {known}")
    variants = [v for v in variants if args.rows is None or v.name in (PLAIN, *args.rows)]

    trained = {id(p): p for v in variants for p in v.model.parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(list(trained.values()), lr=1e-6)
    for number in range(args.rounds):
        for variant in variants:
            _round(variant, optimiser, device)
            spent = f"{variant.totals[-1]:.2f} s, {variant.cpu_seconds[-1]:.1f} CPU s"
            print(f"round {number + 1} of {args.rounds}: {variant.name}: {spent}", file=sys.stderr)
    before = [row - index.scene_of_row(row).first + 1 for row in range(len(index))]
    _report(variants, configs[0], args, device, statistics.mean(before))
    return 0


def _histories(name: str, config: Config) -> list[tuple[str, Config]]:
    """The config as it is, and streamed."""
    streamed = copy.deepcopy(config)
    streamed.merge_from_dict({"history": "stream", "single_frame_steps": 0})
    return [(name, config), (f"{name}{STREAM}", streamed)]


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
        model = setting.distiller(config, chosen_here, student)
        histories = _histories(label, config)
        for name, one in histories if not found else histories[:1]:
            batches = _batches(one, index, args, setting.transforms)
            found.append(Variant(name, model.to(device).train(), history_of(one, student), *batches))
    if args.without_live:
        return found
    teacher_config = load_config(Path(config.filename).parent / config.teacher)
    detector = build_detector(teacher_config)
    load_official(detector, args.checkpoint)
    detector.to(device)
    teacher = TeacherDescription.of_detector(detector, teacher_config)
    maps = compared_maps(config, chosen, student.output_specs(tuple(config.inputs.pad_hw)), teacher)
    pipeline = ImagePipeline.from_config(teacher_config.inputs)
    warp = target_warp(config, maps, teacher)
    sources = {
        "live": LiveSource(detector, StreamingFrames(index, pipeline, args.dataroot), warp),
        "live_fd": DistortedLiveSource(detector, pipeline.pad_hw),
    }
    for name, source in sources.items():
        model = build_distiller(config, chosen, student=student, teacher=teacher, maps=maps, source=source)
        batches = _batches(config, index, args, [])
        model.to(device).train()
        found.append(Variant(f"{method}, {name}", model, history_of(config, student), *batches))
    return found


def _batches(
    config: Config, index: NuScenesIndex, args: argparse.Namespace, transforms: list
) -> tuple[Iterator, float, int]:
    """An endless loader, the seconds a batch takes a single process once warm, and the files it takes."""
    loader = train_loader(
        config, index, args.dataroot, batch_size=1, workers=args.workers, seed=0, transforms=transforms
    )
    # One long epoch over however few frames there are: a loader that starts anew waits for its workers.
    rows = list(itertools.islice(itertools.cycle(loader.sampler), 4 * (args.rounds + 1)))
    with mock.patch.object(images, "read_image", wraps=images.read_image) as read:
        loader.dataset[rows[0]]
    start = time.perf_counter()
    loader.collate_fn([loader.dataset[rows[0]]])
    load_seconds = time.perf_counter() - start
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
    return iter(batches), load_seconds, read.call_count


def _round(variant: Variant, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
    """A step with its phases timed; the next batch is being loaded meanwhile, as in training."""
    if not variant.seconds["forward"]:
        next(variant.batches)
    before, cpu_before = _reset_peak(device), time.process_time()
    clock = _Clock(variant.seconds, device)
    data = next(variant.batches)
    clock.lap("data wait")
    model = variant.model
    data = model.data_preprocessor(data, True)
    inputs, samples, extras = data["inputs"], data["data_samples"], data.get("extras", {})
    student = model.student if isinstance(model, Distiller) else model
    outputs = variant.history.outputs(student, inputs)
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
    variant.cpu_seconds.append(time.process_time() - cpu_before)
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
    by_name = {variant.name: variant for variant in variants}
    plain = variants[0].totals
    rows = []
    for variant in variants:
        totals = variant.totals
        waits = [wait / total for wait, total in zip(variant.seconds["data wait"], totals, strict=True)]
        queue = by_name.get(variant.name.removesuffix(STREAM))
        streamed = queue not in (variant, None)
        rows.append(
            [
                variant.name,
                f"{statistics.median(totals):.2f}",
                _spread(totals, plain),
                _spread(totals, queue.totals) if streamed else "",
                f"{statistics.median(variant.cpu_seconds):.2f}",
                _spread(variant.cpu_seconds, queue.cpu_seconds) if streamed else "",
                str(variant.images_read),
                *(f"{statistics.median(variant.seconds[phase]):.2f}" for phase in PHASES),
                f"{statistics.median(waits):.1%}",
                f"{variant.load_seconds:.2f}",
                f"{variant.peak_bytes / 1e9:.1f}",
            ]
        )
    header = [
        "step",
        "s",
        "of the student alone",
        "of its queue",
        "CPU s",
        "of its queue's",
        "images read",
        *PHASES,
        "waiting",
        "a worker loads in, s",
        "on top, GB",
    ]
    body = [
        f"{Path(config.filename).stem.rsplit('_', 1)[0]}, {config.inputs.pad_hw[0]}×{config.inputs.pad_hw[1]}"
        f" images, a queue of {config.queue_length}, one sample a step, {args.rounds} rounds, {args.workers}"
        " workers a loader, warm page cache. Medians; a ratio compares two steps of the same round, with the"
        " spread in brackets. CPU seconds are those of all threads of the training process: they tell more"
        " than the clock where other processes ran too. Images read are the files of a sample, counted."
        " While another variant's step runs, a loader fills up: whether workers keep pace is the step"
        " against the seconds one of them needs for a batch, divided by their number. Memory is"
        " what a step adds to the weights of all variants. A frame of this split costs `live`"
        f" {frames_before:.1f} forward passes on average, as many as its scene has frames up to it; in"
        " nuScenes it is 20.",
        _load(),
        markdown_table(header, rows),
    ]
    if args.config is None:
        body.append(_verdicts(variants))  # what is aimed at is full size
    name = args.name if device.type == "cpu" else f"{args.name}-cuda"
    publish(name, "What a training step costs, by where the teacher's outputs come from", "\n\n".join(body))


def _load() -> str:
    """How busy the machine was, and what follows from that."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    found = f"Load average at the end: {load:.1f} on {cores} cores."
    return f"{found} Other processes ran too: go by the CPU seconds alone." if load > 2 * cores else found


def _spread(times: Sequence[float], of: Sequence[float]) -> str:
    """Median of the ratios of equal rounds, with the least and the largest."""
    ratios = [own / other for own, other in zip(times, of, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _verdicts(variants: list[Variant]) -> str:
    totals = {variant.name: variant.totals for variant in variants}

    def ratio(slow: str, quick: str) -> float:
        pairs = zip(totals[slow], totals[quick], strict=True)
        return statistics.median(one / other for one, other in pairs)

    lines = []
    if "heatmap, exact" in totals:
        of_plain = ratio("heatmap, exact", PLAIN)
        met = of_plain <= 1.10
        lines.append(_verdict("Cached heatmap step over the plain one", of_plain, met, "at most 1.10"))
    if {"heatmap, exact", "heatmap, live_fd"} <= set(totals):
        live = ratio("heatmap, live_fd", "heatmap, exact")
        lines.append(_verdict("live_fd over the cached step", live, live >= 3, "at least 3"))
    for name in totals:
        if f"{name}{STREAM}" in totals:
            gained = ratio(name, f"{name}{STREAM}")
            lines.append(_verdict(f"{name}: queue over stream", gained, gained >= 1.8, "at least 1.8"))
    return "\n".join(f"- {line}" for line in lines)


def _verdict(what: str, ratio: float, met: bool, target: str) -> str:
    return f"{what}: {ratio:.2f}, target {target}: **{'met' if met else 'missed'}**"


if __name__ == "__main__":
    sys.exit(main())
