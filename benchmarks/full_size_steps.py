"""Ten training steps of every full-size pair of teacher and student, from stores of a real keyframe.

    python benchmarks/full_size_steps.py --dataroot data/nuscenes --version v1.0-mini --split mini_train

The teachers' weights are a formula's (tests/golden/formula.py, offset convolutions scaled down): the numbers
say nothing about how well a student learns, but whether every term is finite at full size, and whether ten
steps on one frame lower it. What is finished in --work is not done again. Writes
benchmarks/results/full_size_steps.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from common import ROOT, markdown_table, publish
from mmengine.model import BaseModel

sys.path.insert(0, str(ROOT / "tests"))

from golden.formula import state_dict

from camera3d.detectors import build_detector
from extract.run import DumpOptions, run_dump
from train.engine.options import DistillOptions
from train.engine.run import distill

STEPS = 10
# The stores, and the terms without the detection loss, which pulls the queries elsewhere.
COLUMNS = ("exact", "focal", "exact-terms")
# One undistorted frame by itself, and nothing that hides a part of it: steps can then be compared.
SETTINGS = {
    "train_cfg.max_epochs": STEPS,
    "queue_length": 1,
    "log_interval": 1,
    "distort": False,
    "model.grid_mask_prob": 0.0,
    "auto_scale_lr.enable": False,
}


@dataclass(frozen=True)
class Pair:
    """A teacher's config and a distillation's; how much the formula's offset convolutions are scaled."""

    teacher: str
    distil: str
    offsets: float


PAIRS = {
    "tiny": Pair("teacher/bevformer_base.py", "distill/bevformer_base_to_tiny_fd3d.py", 0.02),
    "small": Pair("teacher/bevformer_base.py", "distill/bevformer_base_to_small_fd3d.py", 0.02),
    "detr3d": Pair("teacher/detr3d_r101.py", "distill/detr3d_r101_to_r50_fd3d.py", 0.1),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataroot", default="data/nuscenes", help="default data/nuscenes")
    parser.add_argument("--version", default="v1.0-mini")
    parser.add_argument("--split", default="mini_train")
    parser.add_argument("--pairs", nargs="+", choices=tuple(PAIRS), default=list(PAIRS))
    parser.add_argument("--work", type=Path, default=ROOT / "work" / "full-size")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only write the table of what is finished")
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("XDG_CACHE_HOME", str(args.work / "cache"))
    torch.set_num_threads(args.threads)
    for name in () if args.report else args.pairs:
        for column in COLUMNS:
            record = args.work / f"{name}-{column}.json"
            if not record.exists():
                found = steps(args, PAIRS[name], column, args.work / f"{name}-{column}")
                record.write_text(json.dumps(found))
    report(args.work)
    return 0


def steps(args: argparse.Namespace, pair: Pair, column: str, work_dir: Path) -> dict[str, object]:
    """The losses of every step, and the seconds of all of them."""
    profile, *alone = column.split("-")
    where = {"dataroot": args.dataroot, "version": args.version, "split": args.split}
    store = stored(args, pair, profile, where)
    options = DistillOptions(
        config=str(ROOT / "configs" / pair.distil),
        work_dir=str(work_dir),
        val_split="none",
        cache=str(store),
        workers=0,
        cfg_options=dict(SETTINGS),
        **where,
    )
    start = time.perf_counter()
    with recorded(detection=not alone) as losses:
        distill(options)
    return {"losses": losses, "seconds": time.perf_counter() - start}


def stored(args: argparse.Namespace, pair: Pair, profile: str, where: dict[str, str]) -> Path:
    """The teacher's store, made where there is none."""
    teacher = ROOT / "configs" / pair.teacher
    checkpoint, store = args.work / f"{teacher.stem}.pth", args.work / f"{teacher.stem}-{profile}.zarr"
    if not checkpoint.exists():
        weights = state_dict(build_detector(teacher))
        scaled = {k: v * pair.offsets if "conv_offset" in k else v for k, v in weights.items()}
        torch.save({"state_dict": scaled}, checkpoint)
    run_dump(
        DumpOptions(
            config=str(teacher),
            out=str(store),
            checkpoint=str(checkpoint),
            profile=profile,
            threads=args.threads,
            workers=0,
            **where,
        )
    )
    return store


@contextmanager
def recorded(*, detection: bool) -> Iterator[list[dict[str, float]]]:
    """The losses of every step from here on, unsmoothed; without the detection loss if that is wanted."""
    found: list[dict[str, float]] = []
    original = BaseModel.parse_losses

    def parse(self: BaseModel, losses: dict) -> tuple:
        if not detection:
            losses = {name: loss for name, loss in losses.items() if not name.endswith(("_cls", "_bbox"))}
        total, named = original(self, losses)
        found.append({name: float(value.detach()) for name, value in named.items()})
        print(f"step {len(found)}: {found[-1]}", file=sys.stderr)
        return total, named

    with mock.patch.object(BaseModel, "parse_losses", parse):
        yield found


def report(work: Path) -> None:
    """A table a pair: each term in the first and the last step of either store."""
    body = [
        f"One real keyframe, {STEPS} steps of AdamW on it at the schedule's first learning rates, batch 1."
        " The teachers' weights are a formula's, so their boxes and classes contradict the ground truth: the"
        " detection loss pulls the queries away from them, and the query terms cannot fall beside it. Column"
        " exact-terms is without it. A term has to be finite in every step; the mean of its last three steps"
        " over that of its first three says whether it falls.",
    ]
    for name, pair in PAIRS.items():
        records = {column: work / f"{name}-{column}.json" for column in COLUMNS}
        found = {p: json.loads(path.read_text()) for p, path in records.items() if path.exists()}
        if not found:
            continue
        terms = list(dict.fromkeys(term for record in found.values() for term in record["losses"][0]))
        terms = [term for term in terms if not term.startswith("d") or not term[1].isdigit()]
        rows = [[term, *(cell for p in found for cell in cells(found[p]["losses"], term))] for term in terms]
        header = [
            "",
            *(f"{p}: {what}" for p in found for what in ("first three", "last three", "ratio", "finite")),
        ]
        seconds = ", ".join(f"{p} {found[p]['seconds']:.0f} s" for p in found)
        body += [f"## {Path(pair.distil).stem}", markdown_table(header, rows), f"All steps: {seconds}."]
    publish("full_size_steps", "Ten steps at full size", "\n\n".join(body))


def cells(losses: Sequence[dict[str, float]], term: str) -> list[str]:
    """Means of the first and last three steps, their ratio, and whether all are finite."""
    if term not in losses[0]:
        return [""] * 4
    values = [step[term] for step in losses]
    first, last = sum(values[:3]) / 3, sum(values[-3:]) / 3
    finite = "yes" if all(map(math.isfinite, values)) else "NO"
    return [f"{first:.4g}", f"{last:.4g}", f"{last / first:.2f}" if first else "", finite]


if __name__ == "__main__":
    sys.exit(main())
