"""Whether the training can put boxes where the ground truth is: a small student on a few synthetic frames.

    python benchmarks/overfit.py

Scenes of a single frame, so that training and evaluation see the same history, which is none. Nothing is
distorted or masked. Writes benchmarks/results/overfit.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from common import ROOT, markdown_table, publish

from demo.stages import StageFailed, Stages
from synthetic_nuscenes import TRAIN_SPLIT, VERSION

SETTINGS = {
    "queue_length": 1,
    "distort": False,
    "log_interval": 1,
    # All that the devkit scores, where the demo's detectors leave out what is far away.
    "model.point_cloud_range": "(-51.2,-51.2,-5.0,51.2,51.2,3.0)",
    "model.max_detections": 300,
}
TARGET = 0.9


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(ROOT / "configs" / "demo" / "student.py"))
    parser.add_argument("--frames", type=int, default=2, help="to learn by heart (default 2)")
    parser.add_argument("--epochs", type=int, default=600, help="a step of two frames each (default 600)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(Path(folder), threads=1)
        try:
            stages.generate(
                scenes=args.frames + 1,
                held_out=1,
                seconds=0.5,
                image_hw=(126, 224),
                seed=0,
            )
            epochs = {"train_cfg.max_epochs": args.epochs, "train_cfg.val_interval": args.epochs}
            config = Path(args.config).resolve()
            stages.train("overfit", config, settings=SETTINGS | epochs, val_split=TRAIN_SPLIT)
        except StageFailed as error:
            print(error, file=sys.stderr)
            return 2
        metrics = stages.metrics("overfit")
        losses = _losses(stages.folder / "overfit")
    shown = sorted({1, 10, 100, len(losses) // 2, len(losses)})
    body = [
        f"{Path(args.config).stem}, {args.frames} synthetic frames ({VERSION}), {args.epochs} epochs.",
        markdown_table(["step", "loss"], [[step, f"{losses[step - 1]:.3f}"] for step in shown]),
        markdown_table(
            ["class", "AP", "ATE, m"],
            [
                [row["name"], f"{row['ap']:.3f}", f"{row['tp_errors']['ATE']:.3f}"]
                for row in metrics["per_class"]
            ],
        ),
        f"mAP on these frames {metrics['mean_ap']:.3f}, target above {TARGET}:"
        f" **{'met' if metrics['mean_ap'] > TARGET else 'missed'}**; NDS {metrics['nds']:.3f} (a single frame"
        " has no velocity to learn).",
    ]
    publish("overfit", "Learning a few frames by heart", "\n\n".join(body))
    return 0


def _losses(work_dir: Path) -> list[float]:
    """The total loss of each step, out of mmengine's log."""
    lines = next(work_dir.glob("*/vis_data/scalars.json")).read_text().splitlines()
    entries = (json.loads(line) for line in lines)
    return [entry["loss"] for entry in entries if "loss" in entry]


if __name__ == "__main__":
    sys.exit(main())
