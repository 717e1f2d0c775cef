"""What a frame costs a detector: its parameters and multiply-adds.

Counts what torch's flop counter sees in a real forward pass (convolutions and matrix products; two operations
are one multiply-add) and adds the reads of the deformable attentions, which it does not see: four corners
times one channel, for every sampling point.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from camera3d.detectors import build_detector
from camera3d.detectors.bevformer.attention import PillarSampling, TemporalSelfAttention
from camera3d.detectors.builder import load_config
from camera3d.detectors.query_based.deformable import ObjectDeformableAttention
from camera3d.layers.deform_conv import FocalDCNv2
from demo.rig import full_size_inputs


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
