"""What a dump costs over the bare forward passes of the same frames.

    python benchmarks/dump_overhead.py --frames 3 --repeats 2

A full-size detector with random weights over synthetic frames of nuScenes' size: a loop that only calls
`encode` on frames in memory, against `extract.engine.dump`, which also reads the images and writes a store of
profile `exact`. The two take turns. Writes benchmarks/results/dump_overhead.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from common import ROOT, markdown_table, publish

from cache_schema.writer import StoreWriter
from camera3d.data import StreamingFrames, load_or_build_index
from camera3d.data.streaming import StreamingItem
from camera3d.detectors import Detector
from camera3d.fixed_numerics import fixed_numerics
from extract.engine import dump
from extract.run import DumpOptions, prepared
from synthetic_nuscenes import generate

IMAGE_HW = (900, 1600)
TARGET = 0.05


def forward_passes(detector: Detector, items: list[StreamingItem]) -> float:
    """Seconds of the forward passes alone."""
    state = None
    start = time.perf_counter()
    with torch.inference_mode():
        for item in items:
            _, state = detector.encode({name: item[name][None] for name in detector.inputs}, state)
    return time.perf_counter() - start


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(ROOT / "configs" / "student" / "bevformer_small.py"))
    parser.add_argument("--frames", type=int, default=3, help="of the only scene (default 3)")
    parser.add_argument("--repeats", type=int, default=2, help="of both, in turns (default 2)")
    parser.add_argument("--threads", type=int, default=2, help="of the detector (default 2)")
    parser.add_argument(
        "--workers", type=int, default=2, help="that read images ahead (default 2, as a dump)"
    )
    args = parser.parse_args(argv)

    bare, dumped, inside = [], [], []
    with tempfile.TemporaryDirectory() as folder, fixed_numerics(args.threads) as threads:
        root = Path(folder)
        dataroot = generate(
            root / "data", scenes=2, seconds=args.frames / 2, image_hw=IMAGE_HW, val_share=0.5
        )
        index = load_or_build_index(dataroot, "v1.0-synthetic", "synthetic_train")
        options = DumpOptions(
            config=args.config,
            dataroot=str(dataroot),
            version=index.version,
            split=index.split,
            out=str(root / "0.zarr"),
            device="cpu",
        )
        ready = prepared(options, index, threads)
        detector, pipeline, spec = ready.detector, ready.pipeline, ready.spec
        frames = StreamingFrames(index, pipeline, dataroot)
        items = [frames[row] for row in range(len(frames))]
        print(f"{args.config}: one pass to warm up …", file=sys.stderr)
        forward_passes(detector, items[:1])
        for repeat in range(args.repeats):
            print(f"round {repeat + 1} of {args.repeats} …", file=sys.stderr)
            bare.append(forward_passes(detector, items))
            writer = StoreWriter.create(root / f"{repeat}.zarr", spec)
            start = time.perf_counter()
            report = dump(
                detector,
                index,
                pipeline,
                dataroot,
                writer,
                device=torch.device("cpu"),
                workers=args.workers,
                progress=False,
            )
            dumped.append(time.perf_counter() - start)
            inside.append(report.forward_seconds)
    overheads = [own / plain - 1 for own, plain in zip(dumped, bare, strict=True)]
    rows = [
        [number + 1, *(f"{seconds / args.frames:.2f}" for seconds in taken), f"{overhead:+.1%}"]
        for number, (*taken, overhead) in enumerate(zip(bare, dumped, inside, overheads, strict=True))
    ]
    overhead = statistics.median(overheads)
    spread = max(max(times) / min(times) - 1 for times in (bare, dumped))
    verdict = "met" if overhead <= TARGET else "missed"
    if spread > TARGET:
        verdict = "not decided, the machine was not quiet enough"
    outside = statistics.median(own / forward - 1 for own, forward in zip(dumped, inside, strict=True))
    body = [
        f"{Path(args.config).stem}, {args.frames} frames a scene, {spec.bytes_per_sample / 1e6:.1f} MB a"
        f" frame before compression, {threads} threads, {args.workers} processes that read images.",
        markdown_table(
            ["round", "bare forward, s/frame", "dump, s/frame", "of that inside the detector", "overhead"],
            rows,
        ),
        f"Median overhead {overhead:+.1%}, target at most {TARGET:.0%}: **{verdict}**. The same loop varies"
        f" by up to {spread:.1%} between rounds. Within a dump, what is not"
        f" spent inside the detector adds {outside:+.1%} to it. What a scene costs once, its first images and"
        f" the last sample's way to the disk, is spread over {args.frames} frames here, 40 in nuScenes.",
    ]
    publish("dump_overhead", "What a dump costs over the bare forward passes", "\n\n".join(body))
    return 0


if __name__ == "__main__":
    sys.exit(main())
