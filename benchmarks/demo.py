"""The whole pipeline in small: from nothing to a distilled student, a table and a picture.

    python benchmarks/demo.py --out work/demo

Generates synthetic scenes, trains a small teacher, dumps, verifies and pictures its store, trains a student
alone and one from the store (same seed, same steps), and scores all three with the devkit. A stage that is
done is reused; `make clean-demo` removes everything.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from common import ROOT, markdown_table
from complexity import count
from demo_picture import Panel, draw
from stages import TRAIN_SPLIT, VAL_SPLIT, VERSION, StageFailed, Stages, processes, schedule

from cache_schema.reader import TargetReader
from camera3d.data import load_or_build_index

CONFIGS = ROOT / "configs" / "demo"
MODELS = {"teacher": "teacher.py", "student alone": "student.py", "student distilled": "student.py"}
INSPECT = ROOT / "cache_schema" / "inspect_cache.py"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="work/demo", help="folder for everything (default work/demo)")
    parser.add_argument("--scenes", type=int, default=32, help="of 5 s, a sixth held out (default 32)")
    parser.add_argument("--teacher-epochs", type=int, default=4, help="default 4")
    parser.add_argument("--student-epochs", type=int, default=4, help="default 4")
    args = parser.parse_args(argv)
    stages = Stages(Path(args.out).resolve())
    try:
        seconds = run(stages, args)
    except StageFailed as error:
        print(f"{error}\n`make clean-demo` removes what an earlier demo left.", file=sys.stderr)
        return 2
    picture = stages.folder / "demo.png"
    token = pictured(stages, picture)
    print(table(stages, seconds))
    print(f"\nsample {token}: {picture}\nits targets in the store: {stages.folder / 'store.png'}")
    return 0


def run(stages: Stages, args: argparse.Namespace) -> dict[str, float]:
    """All stages; returns the seconds of each."""
    sharing = processes()
    teacher = {"settings": schedule(args.teacher_epochs, sharing), "processes": sharing}
    student = {"settings": schedule(args.student_epochs, sharing), "processes": sharing}
    store = stages.folder / "store.zarr"
    size = {"scenes": args.scenes, "seconds": 5, "image_hw": (126, 224), "val-share": 0.17}
    seconds = {"data": stages.generate(**size, seed=0)}
    seconds["teacher"] = stages.train("teacher", CONFIGS / "teacher.py", **teacher)
    checkpoint = stages.folder / "teacher" / "last.pth"
    seconds["store"] = stages.dump(
        "store", CONFIGS / "teacher.py", checkpoint, profile="exact", processes=sharing
    )
    stages.run("verify", [INSPECT, "verify", store])
    token = TargetReader(store).sample_tokens[len(TargetReader(store)) // 2]
    show = [INSPECT, "show", store, token, "--png", stages.folder / "store.png"]
    stages.run("show", [*show, "--dataroot", stages.folder / "data"])
    seconds["student alone"] = stages.train("alone", CONFIGS / "student.py", **student)
    seconds["student distilled"] = stages.distil(
        "distilled", CONFIGS / "distill_fd3d.py", source={"cache": store}, **student
    )
    return seconds


def table(stages: Stages, seconds: dict[str, float]) -> str:
    """NDS, mAP and cost of the three detectors, and what data and store took."""
    folders = {"teacher": "teacher", "student alone": "alone", "student distilled": "distilled"}
    rows = []
    for name, config in MODELS.items():
        metrics, cost = stages.metrics(folders[name]), count(CONFIGS / config)
        nbytes = (stages.folder / folders[name] / "last.pth").stat().st_size
        rows.append(
            [
                name,
                f"{metrics['nds']:.4f}",
                f"{metrics['mean_ap']:.4f}",
                f"{cost['parameters']:.2f}",
                f"{cost['total']:.2f}",
                f"{seconds[name]:.0f}",
                f"{nbytes / 1e6:.1f}",
            ]
        )
    stored = sum(path.stat().st_size for path in (stages.folder / "store.zarr").rglob("*") if path.is_file())
    images = sum(path.stat().st_size for path in (stages.folder / "data").rglob("*") if path.is_file())
    header = ["", "NDS", "mAP", "M params", "GMAC a frame", "seconds to train", "MB"]
    samples = len(TargetReader(stages.folder / "store.zarr"))
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"scenes: {seconds['data']:.0f} s, {images / 1e6:.0f} MB; its store: {seconds['store']:.0f} s,"
        f" {stored / 1e6:.0f} MB, {samples} samples of {TRAIN_SPLIT}. NDS and mAP on {VAL_SPLIT}."
    )


def pictured(stages: Stages, path: Path) -> str:
    """Draw a held-out sample with most objects near the ego; returns its token."""
    index = load_or_build_index(stages.folder / "data", VERSION, VAL_SPLIT)
    frame = max(index.frames(), key=lambda frame: len(frame.gt_boxes))
    panels = [Panel.of_ground_truth(frame)]
    for title, folder in (("teacher", "teacher"), ("student alone", "alone"), ("distilled", "distilled")):
        results = stages.folder / folder / "validation" / "results_nusc.json"
        found = json.loads(results.read_text())["results"][frame.sample_token]
        panels.append(Panel.of_results(title, frame, found))
    draw(panels, path)
    return frame.sample_token


if __name__ == "__main__":
    sys.exit(main())
