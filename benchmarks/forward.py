"""Seconds a frame and peak memory of each detector at full size, and where the time goes.

Example:
    python benchmarks/forward.py configs/teacher/bevformer_base.py --repeats 3

Float32, one frame with a previous BEV, batch of one. Every detector runs in a process of its own, so that the
peak memory is its own. Run it on a quiet machine; the spread says how quiet it was.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from common import ROOT, markdown_table, publish

from demo.rig import full_size_inputs

# The released code under its own stack (torch 1.9.1), on two cores of the same kind: seconds a frame.
OFFICIAL_SECONDS = {"bevformer_base": "132-143", "bevformer_small": "20-25"}


def measure(path: Path, repeats: int, device: str) -> dict:
    """Seconds of each repeat, the seconds inside each part during the last one, peak memory in bytes."""
    from camera3d.detectors import build_detector
    from camera3d.detectors.builder import load_config

    config = load_config(path)
    detector = build_detector(config).to(device)
    image_hw = tuple(config.inputs.pad_hw)
    inputs = {k: v.to(device) for k, v in full_size_inputs(image_hw, pixels_wide=image_hw[1]).items()}
    seconds = []
    with torch.inference_mode():
        _, state = detector.encode(inputs)  # the first pass also warms up
        parts = timed_parts(detector, device)
        for _ in range(repeats):
            parts.clear()
            synchronise(device)
            start = time.perf_counter()
            detector.encode(inputs, state)
            synchronise(device)
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated(device)
    return {"seconds": seconds, "parts": dict(parts), "peak": peak}


def timed_parts(detector: torch.nn.Module, device: str) -> dict[str, float]:
    """Seconds by part, filled whenever the detector runs."""
    transformer = detector.pts_bbox_head.transformer
    spent: dict[str, float] = defaultdict(float)
    parts = {
        "backbone": [detector.img_backbone],
        "neck": [detector.img_neck],
        "decoder": [transformer.decoder],
    }
    parts["deformable convolution"] = [
        module for module in detector.img_backbone.modules() if type(module).__name__ == "FocalDCNv2"
    ]
    for layer in transformer.encoder.layers:
        temporal, spatial = layer.attentions
        parts.setdefault("temporal attention", []).append(temporal)
        parts.setdefault("spatial attention", []).append(spatial)
        parts.setdefault("encoder FFN", []).append(layer.ffns[0])
    for name, modules in parts.items():
        for module in modules:
            started: list[float] = []

            def before(module, args, started=started):
                synchronise(device)
                started.append(time.perf_counter())

            def after(module, args, output, name=name, started=started):
                synchronise(device)
                spent[name] += time.perf_counter() - started.pop()

            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    return spent


def synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", help="configs to time (default: Base and Small)")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes after a warm-up (default 3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    default = [ROOT / f"configs/{n}.py" for n in ("teacher/bevformer_base", "student/bevformer_small")]
    paths = [Path(path) for path in args.configs] or default
    if args.one:
        print(json.dumps(measure(paths[0], args.repeats, args.device)))
        return 0

    header = ["detector", "s/frame (median)", "min-max", "peak GB", "released code, s"]
    times, shares = [], []
    for path in paths:
        print(f"timing {path.stem} …", file=sys.stderr)
        command = [sys.executable, __file__, str(path), "--one", "--repeats", str(args.repeats)]
        command += ["--device", args.device]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        got = json.loads(done.stdout.splitlines()[-1])
        seconds, parts = got["seconds"], got["parts"]
        times.append(
            [
                path.stem,
                f"{statistics.median(seconds):.2f}",
                f"{min(seconds):.2f}-{max(seconds):.2f}",
                f"{got['peak'] / 1e9:.2f}",
                OFFICIAL_SECONDS.get(path.stem, "-"),
            ]
        )
        deformable = parts.pop("deformable convolution", 0.0)
        parts = {"backbone without DCN": parts.pop("backbone") - deformable, "DCN": deformable, **parts}
        parts["rest"] = seconds[-1] - sum(parts.values())
        shares.append([path.stem, *(f"{value:.2f} ({value / seconds[-1]:.0%})" for value in parts.values())])
    body = markdown_table(header, times) + "\n\nWhere the seconds of the last pass went:\n\n"
    body += markdown_table(["detector", *parts], shares)
    publish("forward" if args.device == "cpu" else "forward-cuda", "Seconds a frame and peak memory", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
