"""Both stages of a family on a pretended accelerator beside the CPU; prints what was found, as JSON.

    python tests/pretended_steps.py detr3d FOLDER

A process of its own: torch must know the device before its first backward pass.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pretended_device
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from train_cases import SPLIT, VERSION, make_workshop, prepare

from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, StreamingFrames, load_or_build_index
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from camera3d.streaming import detections_of, run_scene

TERMS = {
    "bevformer": ("pv_divergence", "bev_heatmap", "pv_generation", "bev_generation", "focal", "query"),
    "detr3d": ("pv_generation", "focal", "query"),
}


def plain(value: Tensor) -> Tensor:
    """The numbers of a tensor, wherever it lies."""
    return value.elem if isinstance(value, pretended_device.PretendedTensor) else value


def error(ours: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest value."""
    if not wanted.numel():
        return 0.0
    difference = (plain(ours).double() - wanted.double()).abs().max()
    return float(difference / wanted.double().abs().max().clamp(min=1e-6))


def on_the_device(batch: dict) -> dict:
    """What the data preprocessor moves."""
    samples = copy.deepcopy(batch["data_samples"])
    for sample in samples:
        truth = sample.gt_instances_3d
        truth.labels_3d = pretended_device.pretend(truth.labels_3d)
        truth.bboxes_3d.tensor = pretended_device.pretend(truth.bboxes_3d.tensor)
    return {
        "inputs": pretended_device.moved(batch["inputs"]),
        "data_samples": samples,
        "extras": tree_map(
            lambda value: pretended_device.pretend(value) if isinstance(value, Tensor) else value,
            batch["extras"],
        ),
    }


def training_step(shop, profile: str, augmentation: dict | None = None) -> dict[str, object]:
    """A distillation step of two samples without anything that draws on the device."""
    options = {"model.grid_mask_prob": 0.0, "model.pts_bbox_head.dropout": 0.0}
    options["augmentation"] = augmentation
    # What focal leaves out is more than a divergence over whole maps may lack.
    terms = {n: {} for n in TERMS[shop.family] if (n, profile) != ("pv_divergence", "focal")}
    terms["pv_generation"] = {"mask_ratio": 0.0}
    chosen = {"terms": terms, "bev_mask_ratio": 0.0}
    path = shop.student_config("pretended", distiller=chosen, **options)
    got = prepare(shop.options(path, cache=str(shop.store(profile))))
    model, batch = got.model.train(), got.batch(shop.dataroot, batch_size=2)
    wanted = model(**batch, mode="loss")
    sum(wanted.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    pretended_device.move(model)
    moved = on_the_device(batch)
    # Counted in the second step: constants are sent in the first one and stay.
    for _ in range(2):
        model.zero_grad()
        with pretended_device.pretending() as waits:
            losses = model(**moved, mode="loss")
            sum(losses.values()).backward()
    return {
        "places": sorted({loss.device.type for loss in losses.values()}),
        "losses": {name: error(losses[name], loss.detach()) for name, loss in wanted.items()},
        "gradients": max(error(p.grad, gradients[n]) for n, p in model.named_parameters() if n in gradients),
        "waits": dict(waits),
        "sites": waits.sites.most_common(),
    }


def stream(shop) -> dict[str, object]:
    """The frames of a scene as a dump runs the teacher, and what it detects."""
    config = load_config(shop.teacher_config)
    detector = build_detector(config)
    load_official(detector, shop.checkpoint)
    index = load_or_build_index(shop.dataroot, VERSION, SPLIT)
    pipeline = ImagePipeline.from_config(config.inputs)
    scene = index.scene_rows[0]
    frames = [StreamingFrames(index, pipeline, shop.dataroot)[row] for row in range(scene.first, scene.stop)]
    specs = detector.output_specs(tuple(pipeline.pad_hw))

    def run(device: torch.device) -> list[dict[str, Tensor]]:
        found = []
        for item, outputs in run_scene(detector, frames, device, torch.no_grad):
            boxes = detections_of(detector, specs, outputs, item["sample_token"])
            found.append({**outputs, **vars(boxes)})
        return found

    wanted = run(torch.device("cpu"))
    pretended_device.move(detector)
    with pretended_device.pretending() as waits:
        ours = run(pretended_device.device())
    return {
        "frames": len(frames),
        "outputs": max(
            error(own[n], v) for own, one in zip(ours, wanted, strict=True) for n, v in one.items()
        ),
        "waits": dict(waits),
        "sites": waits.sites.most_common(),
    }


def left_behind(shop) -> str:
    """What happens when a buffer stays on the host."""
    config = load_config(shop.teacher_config)
    detector = pretended_device.move(build_detector(config))
    head = detector.pts_bbox_head
    head.query_embedding.weight = torch.nn.Parameter(plain(head.query_embedding.weight.detach()))
    frame = {
        "images": torch.randn(1, 6, 3, *config.inputs.pad_hw),
        "lidar2img": torch.randn(1, 6, 4, 4),
        "can_bus": torch.randn(1, 18),
    }
    try:
        with torch.no_grad(), pretended_device.pretending():
            detector.encode(pretended_device.moved(frame))
    except RuntimeError as mixed:
        return str(mixed)
    return "nothing"


if __name__ == "__main__":
    pretended_device.device()
    torch.set_num_threads(1)
    made = make_workshop(Path(sys.argv[2]), sys.argv[1])
    report = {
        "step": training_step(made, "exact"),
        "focal step": training_step(made, "focal"),
        "augmented step": training_step(made, "exact", {"image": {"zoom": (0.9, 1.1), "rotate_deg": 5.0}}),
        "stream": stream(made),
        "mixed": left_behind(made),
    }
    sys.stdout.write(json.dumps(report) + "\n")
