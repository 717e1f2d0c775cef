"""Parameters and multiply-adds of each detector, beside the published numbers.

Example:
    python benchmarks/complexity.py configs/teacher/bevformer_base.py configs/student/bevformer_small.py

Counts what torch's flop counter sees in a real forward pass (convolutions and matrix products; two operations
are one multiply-add) and adds the reads of the deformable attentions, which it does not see: four corners
times one channel, for every sampling point.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from common import ROOT, markdown_table, publish
from rig import full_size_inputs
from torch.utils.flop_counter import FlopCounterMode

from camera3d.detectors import build_detector
from camera3d.detectors.bevformer.attention import (
    ObjectDeformableAttention,
    PillarSampling,
    TemporalSelfAttention,
)
from camera3d.detectors.builder import load_config
from camera3d.layers.deform_conv import FocalDCNv2

DEFAULT = ("teacher/bevformer_base.py", "student/bevformer_small.py", "student/bevformer_tiny.py")
PUBLISHED_GMAC = {"bevformer_base": 1323.41, "bevformer_small": 416.46}

EXPLANATION = """The published numbers leave out the modulated deformable convolutions: the tool they were
made with counts the module types that it knows, and these are operators of mmcv. Without them the totals
agree. With them a frame costs a third (Small) to two fifths (Base) more, which is the work to be done."""


def count(path: Path) -> dict[str, float]:
    """Millions of parameters, and GMAC by part of the detector."""
    config = load_config(path)
    detector = build_detector(config).requires_grad_(False)
    image_hw = tuple(config.inputs.pad_hw)
    sampled = {"reads": 0}

    def count_reads(module, args, output):
        # Rows of queries × channels × points × four corners; the pillars have a batch entry a camera.
        query = args[0]
        levels = getattr(module, "num_levels", 1) * getattr(module, "QUEUE", 1)
        sampled["reads"] += query.numel() * levels * module.num_points * 4

    dcn = {"macs": 0}

    def count_dcn(module, args, output):
        dcn["macs"] += output.numel() * module.weight[0].numel()

    for module in detector.modules():
        if isinstance(module, TemporalSelfAttention | PillarSampling | ObjectDeformableAttention):
            module.register_forward_hook(count_reads)
        if isinstance(module, FocalDCNv2):
            module.register_forward_hook(count_dcn)

    inputs = full_size_inputs(image_hw, pixels_wide=image_hw[1])
    with torch.no_grad(), FlopCounterMode(detector, display=False, depth=None) as counter:
        detector.encode(inputs)
    by_module = {name: sum(ops.values()) / 2 for name, ops in counter.get_flop_counts().items()}
    transformer = detector.pts_bbox_head.transformer
    # The counter names a part by the class of the module that was called first.
    part = {
        name: by_module[type(module).__name__] / 1e9
        for name, module in {
            "backbone": detector.img_backbone,
            "neck": detector.img_neck,
            "encoder": transformer.encoder,
            "decoder": transformer.decoder,
        }.items()
    }
    total = by_module["Global"] / 1e9
    return {
        "parameters": sum(p.numel() for p in detector.parameters()) / 1e6,
        **part,
        "other": total - sum(part.values()),
        "sampling": sampled["reads"] / 1e9,
        "deformable": dcn["macs"] / 1e9,
        "total": total + sampled["reads"] / 1e9,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="*", help="configs to count (default: the official three)")
    args = parser.parse_args(argv)
    paths = [Path(path) for path in args.configs] or [ROOT / "configs" / name for name in DEFAULT]
    rows = []
    for path in paths:
        print(f"counting {path.stem} …", file=sys.stderr)
        got = count(path)
        published = PUBLISHED_GMAC.get(path.stem)
        without = got["total"] - got["deformable"]
        ours = [got[key] for key in ("parameters", "backbone", "neck", "encoder", "decoder", "other")]
        ours += [got[key] for key in ("sampling", "total", "deformable")]
        rows.append(
            [
                path.stem,
                *(f"{value:.2f}" for value in ours),
                f"{without:.2f}",
                f"{published:.2f}" if published else "-",
                f"{got['total'] / published - 1:+.1%}" if published else "-",
                f"{without / published - 1:+.1%}" if published else "-",
            ]
        )
    header = ["detector", "M params", "backbone", "neck", "encoder", "decoder", "other", "sampling", "total"]
    header += ["of which DCN", "without DCN", "published", "total vs published", "without DCN vs published"]
    table = markdown_table(header, rows)
    publish("complexity", "Parameters and GMAC of a frame, by part", f"{table}\n\n{EXPLANATION}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
