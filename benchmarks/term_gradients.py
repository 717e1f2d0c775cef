"""How hard each distillation term pulls at the student's maps, beside the detection loss.

    python benchmarks/term_gradients.py configs/demo/distill_fd3d.py configs/demo/distill_heatmap.py \\
        --cache work/gain/exact.zarr --dataroot work/gain/data --version v1.0-synthetic

A term whose gradient is a hundredth of the detection loss's cannot steer the student, whatever its value. The
student starts as training starts, or from --checkpoint, an iter_*.pth of one config's distillation. Writes
benchmarks/results/term_gradients.md, or another file of that folder with --name.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from common import markdown_table, publish
from torch import Tensor

from cache_schema.reader import TargetReader
from camera3d.checkpoint import harmless_globals
from camera3d.data import DatasetChoice, NuScenesIndex, collate_queue, load_or_build_index
from camera3d.detectors.builder import build_detector, load_config
from camera3d.detectors.protocol import BEV_MAP, IMAGE_MAP, with_role
from camera3d.logs import quiet_mmengine
from train.distillers.config import DistillerConfig
from train.distillers.distiller import Distiller
from train.engine.data import train_loader
from train.engine.targets import from_store


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="distillation configs")
    parser.add_argument("--cache", required=True)
    parser.add_argument("--dataroot", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--checkpoint", type=Path, help="iter_*.pth; only with a single config")
    parser.add_argument("--queue-length", type=int, help="frames of a sample (default: the config's)")
    parser.add_argument("--name", default="term_gradients", help="of the result (default term_gradients)")
    parser.add_argument("--frames", type=int, default=16, help="to average over (default 16)")
    args = parser.parse_args(argv)
    if args.checkpoint and len(args.configs) > 1:
        parser.error("--checkpoint is of one config's distillation: give that config alone")

    index = load_or_build_index(
        args.dataroot, args.version, DatasetChoice().default_splits(args.dataroot, args.version)[0]
    )
    rows = []
    for path in args.configs:
        model, items = distillation(path, args, index)
        for name, (value, bev, image) in pulls(model, items).items():
            rows.append([Path(path).stem, name, f"{value:.3f}", _percent(bev), _percent(image)])
    start = args.checkpoint.name if args.checkpoint else "the start of training"
    header = ["config", "loss", "value", "gradient at bev_feats", "at pv_feats"]
    notes = (
        f"{args.frames} frames, the student of {start}. Gradients: L2 norm over a map (all image levels"
        " together), median over the frames, in percent of the detection loss's own."
    )
    publish(args.name, "How hard each term pulls", f"{notes}\n\n{markdown_table(header, rows)}")
    return 0


def distillation(
    path: str, args: argparse.Namespace, index: NuScenesIndex
) -> tuple[Distiller, Sequence[dict]]:
    """The distiller of a config, and its training samples."""
    config = load_config(path)
    config.queue_length = args.queue_length or config.queue_length
    chosen, reader = DistillerConfig.from_config(config), TargetReader(args.cache)
    torch.manual_seed(0)
    student = build_detector(config)
    with quiet_mmengine():
        student.init_weights()
    setting = from_store(config, chosen, student, reader, index)
    model = setting.distiller(config, chosen, student)
    if args.checkpoint:
        with harmless_globals():
            held = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(held["state_dict"])
    loader = train_loader(
        config,
        index,
        args.dataroot,
        batch_size=1,
        workers=0,
        seed=0,
        transforms=setting.transforms,
    )
    step = max(1, len(loader.dataset) // args.frames)
    chosen_rows = range(0, len(loader.dataset), step)[: args.frames]
    return model.train(), [loader.dataset[row] for row in chosen_rows]


def pulls(model: Distiller, items: Sequence[dict]) -> dict[str, tuple[float, float, float]]:
    """By loss: its value, and its gradient at the BEV map and at the image maps against the detection's."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for item in items:
        batch = model.data_preprocessor(collate_queue([item]), True)
        inputs, samples = batch["inputs"], batch["data_samples"]
        outputs = model.student.training_outputs(inputs)
        specs = model.student.output_specs((1, 1))
        maps = [outputs[spec.name] for role in (BEV_MAP, IMAGE_MAP) for spec in with_role(specs, role)]
        detection = sum(model.detection_losses(outputs, samples).values())
        bev, image = _norms(detection, maps)
        targets = model.source.targets(inputs, samples, batch["extras"])
        areas = model.areas(targets, inputs, samples, batch["extras"])
        losses = model.distillation_losses(outputs, targets, areas)
        found.setdefault("detection", []).append((float(detection.detach()), 1.0, 1.0))
        for name, loss in losses.items():
            own_bev, own_image = _norms(loss, maps)
            found.setdefault(name, []).append((float(loss.detach()), own_bev / bev, own_image / image))
    return {
        name: tuple(statistics.median(numbers) for numbers in zip(*values, strict=True))
        for name, values in found.items()
    }


def _norms(loss: Tensor, maps: Sequence[Tensor]) -> tuple[float, float]:
    """Of a loss's gradient at the BEV map, and at all image maps together."""
    bev, *images = torch.autograd.grad(loss, maps, retain_graph=True, allow_unused=True)
    squared = [float(grad.square().sum()) for grad in images if grad is not None]
    return (0.0 if bev is None else float(bev.norm())), sum(squared) ** 0.5


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}"


if __name__ == "__main__":
    sys.exit(main())
