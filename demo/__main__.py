"""The whole pipeline in small: from a teacher's weights to a distilled student, a table and a picture.

    python -m demo --out work/demo

Generates synthetic scenes, dumps, verifies and pictures the shipped teacher's store of them, trains a student
alone and one from the store (same seed, same steps), scores all three with the devkit, and writes a page of
the store and one that compares the three. `--teacher train` trains a teacher first. A stage that is done is
reused; `make clean-demo` removes everything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cache_schema.errors import CacheError
from cache_schema.reader import TargetReader
from cache_schema.stdout import tell
from camera3d.config_files import configs_folder
from camera3d.data import load_or_build_index
from camera3d.errors import Camera3DError
from demo import ROOT
from demo.cost import count
from demo.markdown import markdown_table
from demo.picture import Panel, draw
from demo.stages import BATCH_SIZE, SCENES, StageFailed, Stages, cores, processes, schedule, stop_like_ctrl_c
from demo.teacher import WEIGHTS, train, weights_of
from synthetic_nuscenes import TRAIN_SPLIT, VAL_SPLIT, VERSION

CONFIGS = configs_folder() / "demo"
INSPECT = ROOT / "cache_schema" / "inspect_cache.py"
COMPARE = ROOT / "train" / "compare.py"
HELD_OUT = 6  # one scene in so many


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
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="work/demo", help="folder for everything (default work/demo)")
    parser.add_argument("--scenes", type=int, default=48, help="of 5 s, a sixth held out (default 48)")
    parser.add_argument("--student-epochs", type=int, default=2, help="default 2")
    parser.add_argument(
        "--teacher",
        choices=("shipped", "train"),
        default="shipped",
        help=f"shipped: configs/demo/{WEIGHTS.name} (default); train: make one",
    )
    parser.add_argument("--teacher-scenes", type=int, default=80, help="to train a teacher on (default 80)")
    parser.add_argument("--teacher-epochs", type=int, default=4, help="default 4")
    args = parser.parse_args(argv)
    stages = Stages(Path(args.out).resolve())
    # The index of the scenes that the commands keep: `make clean-demo` is to remove that too.
    os.environ["XDG_CACHE_HOME"] = str(stages.folder / "cache")
    stop_like_ctrl_c()
    start = time.perf_counter()
    try:
        checkpoint = teacher_weights(stages, args)
        seconds = run(stages, checkpoint, args)
        token = pictured(stages, stages.folder / "demo.png")
        page = compared(stages)
        tell(table(stages, checkpoint, seconds))
    except (StageFailed, CacheError, Camera3DError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    tell(
        f"\nThis call took {time.perf_counter() - start:.0f} s.\n"
        f"sample {token}: {stages.folder / 'demo.png'}\n"
        f"a sample of the store: {stages.folder / 'store.png'}; the store: {stages.folder / 'store.html'}\n"
        f"losses, scores, curves and frames of all three: {page}"
    )
    return 0


def teacher_weights(stages: Stages, args: argparse.Namespace) -> Path:
    """The shipped teacher's, or those of one that is trained now, on scenes of its own."""
    if args.teacher == "shipped":
        if not WEIGHTS.is_file():
            raise StageFailed(
                f"{WEIGHTS} is missing: check it out again, or train one with make demo TEACHER=train"
            )
        return WEIGHTS
    training = Stages(stages.folder / "teacher-training")
    held_out = max(1, args.teacher_scenes // 10)
    epochs = args.teacher_epochs
    train(training, scenes=args.teacher_scenes, held_out=held_out, epochs=epochs, every=epochs)
    return weights_of(training)


def run(stages: Stages, teacher: Path, args: argparse.Namespace) -> dict[str, float]:
    """All stages but the teacher's training; returns the seconds of each."""
    store, seconds = stages.folder / "store.zarr", {}
    held_out = max(1, args.scenes // HELD_OUT)
    seconds["data"] = stages.generate(scenes=args.scenes, held_out=held_out, seed=0, **SCENES)
    config = CONFIGS / "teacher.py"
    seconds["store"] = stages.dump("store", config, teacher, profile="exact", processes=processes())
    stages.run("verify", [INSPECT, "verify", store])
    tokens, picture = TargetReader(store).sample_tokens, stages.folder / "store.png"
    show = [INSPECT, "show", store, tokens[len(tokens) // 2], "--png", picture]
    stages.run("show", [*show, "--dataroot", stages.folder / "data"], makes=picture)

    # Two trainings of one process each use two cores better than one training of two does.
    beside = Stages(stages.folder, threads=max(1, cores() // 2))
    student = {"settings": schedule(args.student_epochs, BATCH_SIZE)}

    def alone() -> None:
        seconds["student alone"] = beside.train("alone", CONFIGS / "student.py", **student)
        seconds["teacher"] = beside.evaluate("teacher", config, teacher)

    def distilled() -> None:
        fd3d = CONFIGS / "distill_fd3d.py"
        seconds["student distilled"] = beside.distil("distilled", fd3d, source={"cache": store}, **student)

    beside.together(alone, distilled)
    return seconds


def table(stages: Stages, teacher: Path, seconds: dict[str, float]) -> str:
    """NDS, mAP and cost of the three detectors, and what data and store took."""
    rows = []
    for name, contestant in CONTESTANTS.items():
        metrics = stages.metrics(contestant.folder)
        cost = count(CONFIGS / contestant.config)
        weights = teacher if name == "teacher" else stages.folder / contestant.folder / "last.pth"
        rows.append(
            [
                name,
                f"{metrics['nds']:.4f}",
                f"{metrics['mean_ap']:.4f}",
                f"{cost['parameters']:.2f}",
                f"{cost['total']:.2f}",
                f"{seconds[name]:.0f}",
                f"{weights.stat().st_size / 1e6:.1f}",
            ]
        )
    header = ["", "NDS", "mAP", "M params", "GMAC a frame", "seconds", "MB of weights"]
    samples = len(TargetReader(stages.folder / "store.zarr"))
    return (
        f"{markdown_table(header, rows)}\n\n"
        "Seconds: to train and score a student while the other one trains beside it; to score the teacher.\n"
        f"Scenes: {seconds['data']:.0f} s, {_megabytes(stages.folder / 'data'):.0f} MB. The teacher's store:"
        f" {seconds['store']:.0f} s, {_megabytes(stages.folder / 'store.zarr'):.0f} MB, {samples} samples of"
        f" {TRAIN_SPLIT}. NDS and mAP on {VAL_SPLIT}."
    )


def pictured(stages: Stages, path: Path) -> str:
    """Draw a held-out sample with most objects in view; returns its token."""
    index = load_or_build_index(stages.folder / "data", VERSION, VAL_SPLIT)
    panels_by_frame = ((Panel.of_ground_truth(frame), frame) for frame in index.frames())
    annotated, frame = max(panels_by_frame, key=lambda pair: len(pair[0].classes))
    found = []
    for title, contestant in CONTESTANTS.items():
        results = stages.folder / contestant.folder / "validation" / "results_nusc.json"
        boxes = json.loads(results.read_text())["results"][frame.sample_token]
        found.append(Panel.of_results(title, frame, boxes, len(annotated.classes)))
    draw(annotated, found, frame, stages.folder / "data", path)
    return frame.sample_token


def compared(stages: Stages) -> Path:
    """A page with all three side by side, and one of the store; returns the first."""
    data, page, store = stages.folder / "data", stages.folder / "compare.html", stages.folder / "store.html"
    dataset = ["--dataroot", data]
    stages.run(
        "report", [INSPECT, "report", stages.folder / "store.zarr", "--out", store, *dataset], makes=store
    )
    folders = [stages.folder / contestant.folder for contestant in CONTESTANTS.values()]
    names = ["--names", *CONTESTANTS]
    command = [COMPARE, *folders, *names, "--out", page, *dataset, "--version", VERSION]
    stages.run("compare", command, makes=page)
    return page


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main())
