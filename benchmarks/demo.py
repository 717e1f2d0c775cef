"""The whole pipeline in small: from nothing to a distilled student, a table and a picture.

    python benchmarks/demo.py --out work/demo

Generates synthetic scenes, trains a small teacher, dumps, verifies and pictures its store, trains a student
alone and one from the store (same seed, same steps), and scores all three with the devkit. A stage that is
done is reused; `make clean-demo` removes everything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from common import ROOT, markdown_table
from complexity import count
from demo_picture import Panel, draw
from stages import BATCH_SIZE, SCENES, StageFailed, Stages, processes, schedule, stop_like_ctrl_c

from cache_schema.errors import CacheError
from cache_schema.reader import TargetReader
from camera3d.data import load_or_build_index
from camera3d.data.synthetic import TRAIN_SPLIT, VAL_SPLIT, VERSION
from camera3d.errors import Camera3DError

CONFIGS = ROOT / "configs" / "demo"
INSPECT = ROOT / "cache_schema" / "inspect_cache.py"


@dataclass(frozen=True)
class Contestant:
    """A detector of the table: its config below configs/demo, and its folder below the demo's."""

    config: str
    folder: str


CONTESTANTS = {
    "teacher": Contestant("teacher.py", "teacher"),
    "student alone": Contestant("student.py", "alone"),
    "student distilled": Contestant("student.py", "distilled"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="work/demo", help="folder for everything (default work/demo)")
    parser.add_argument("--scenes", type=int, default=32, help="of 5 s, a sixth held out (default 32)")
    parser.add_argument("--teacher-epochs", type=int, default=4, help="default 4")
    parser.add_argument("--student-epochs", type=int, default=2, help="default 2")
    args = parser.parse_args(argv)
    stages = Stages(Path(args.out).resolve())
    # The index of the scenes that the commands keep: `make clean-demo` is to remove that too.
    os.environ["XDG_CACHE_HOME"] = str(stages.folder / "cache")
    stop_like_ctrl_c()
    try:
        seconds = run(stages, args)
        token = pictured(stages, stages.folder / "demo.png")
    except (StageFailed, CacheError, Camera3DError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same call goes on", file=sys.stderr)
        return 130
    print(table(stages, seconds))
    print(f"\nsample {token}: {stages.folder / 'demo.png'}")
    print(f"its like in the store: {stages.folder / 'store.png'}")
    return 0


def run(stages: Stages, args: argparse.Namespace) -> dict[str, float]:
    """All stages; returns the seconds of each."""
    sharing = processes()
    teacher = {"settings": schedule(args.teacher_epochs, BATCH_SIZE // sharing), "processes": sharing}
    student = {"settings": schedule(args.student_epochs, BATCH_SIZE // sharing), "processes": sharing}
    store = stages.folder / "store.zarr"
    seconds = {
        "data": stages.generate(scenes=args.scenes, held_out=max(1, args.scenes // 6), seed=0, **SCENES)
    }
    seconds["teacher"] = stages.train("teacher", CONFIGS / "teacher.py", **teacher)
    checkpoint = stages.folder / "teacher" / "last.pth"
    seconds["store"] = stages.dump(
        "store", CONFIGS / "teacher.py", checkpoint, profile="exact", processes=sharing
    )
    stages.run("verify", [INSPECT, "verify", store])
    tokens, picture = TargetReader(store).sample_tokens, stages.folder / "store.png"
    show = [INSPECT, "show", store, tokens[len(tokens) // 2], "--png", picture]
    stages.run("show", [*show, "--dataroot", stages.folder / "data"], makes=picture)
    seconds["student alone"] = stages.train("alone", CONFIGS / "student.py", **student)
    seconds["student distilled"] = stages.distil(
        "distilled", CONFIGS / "distill_fd3d.py", source={"cache": store}, **student
    )
    return seconds


def table(stages: Stages, seconds: dict[str, float]) -> str:
    """NDS, mAP and cost of the three detectors, and what data and store took."""
    rows = []
    for name, contestant in CONTESTANTS.items():
        metrics = stages.metrics(contestant.folder)
        cost = count(CONFIGS / contestant.config)
        nbytes = (stages.folder / contestant.folder / "last.pth").stat().st_size
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
    header = ["", "NDS", "mAP", "M params", "GMAC a frame", "seconds to train and score", "MB of weights"]
    samples = len(TargetReader(stages.folder / "store.zarr"))
    return (
        f"{markdown_table(header, rows)}\n\n"
        f"scenes: {seconds['data']:.0f} s, {images / 1e6:.0f} MB; its store: {seconds['store']:.0f} s,"
        f" {stored / 1e6:.0f} MB, {samples} samples of {TRAIN_SPLIT}. NDS and mAP on {VAL_SPLIT}."
    )


def pictured(stages: Stages, path: Path) -> str:
    """Draw a held-out sample with most objects in view; returns its token."""
    index = load_or_build_index(stages.folder / "data", VERSION, VAL_SPLIT)
    panels_by_frame = ((Panel.of_ground_truth(frame), frame) for frame in index.frames())
    annotated, frame = max(panels_by_frame, key=lambda pair: len(pair[0].classes))
    panels = [annotated]
    for title, contestant in CONTESTANTS.items():
        results = stages.folder / contestant.folder / "validation" / "results_nusc.json"
        found = json.loads(results.read_text())["results"][frame.sample_token]
        panels.append(Panel.of_results(title, frame, found, len(annotated.classes)))
    draw(panels, path)
    return frame.sample_token


if __name__ == "__main__":
    sys.exit(main())
