"""Make the teacher that is shipped: from a seed to configs/demo/teacher.pth.

    python benchmarks/demo_teacher.py --work work/teacher --install

Generates the scenes and trains configs/demo/teacher.py on them, scored on held-out scenes every two epochs.
Takes hours on two cores; one that was stopped goes on with the same command. Writes
benchmarks/results/demo_teacher.md and docs/pictures/demo-teacher.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import ROOT, markdown_table, publish

from camera3d.data import load_or_build_index
from camera3d.errors import Camera3DError
from demo.stages import SCENES, StageFailed, Stages, sha256, stop_like_ctrl_c
from demo.teacher import NAME, SEED, WEIGHTS, train, weights_of
from synthetic_nuscenes import TRAIN_SPLIT, VAL_SPLIT, VERSION

PICTURE = ROOT / "docs" / "pictures" / "demo-teacher.png"
ERRORS = {"mATE": "m", "mASE": "1 - IoU", "mAOE": "rad", "mAVE": "m/s", "mAAE": "1 - accuracy"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="work/teacher", help="folder for everything (default work/teacher)")
    parser.add_argument("--scenes", type=int, default=420, help="of 5 s (default 420)")
    parser.add_argument("--held-out", type=int, default=20, help="of them, to score on (default 20)")
    parser.add_argument("--epochs", type=int, default=6, help="default 6")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the scenes (default {SEED})")
    parser.add_argument("--install", action="store_true", help=f"copy the weights to {WEIGHTS.name} as well")
    parser.add_argument("--report", action="store_true", help="only write the results of a training so far")
    args = parser.parse_args(argv)
    stages = Stages(Path(args.work).resolve())
    stop_like_ctrl_c()
    try:
        if not args.report:
            train(stages, scenes=args.scenes, held_out=args.held_out, epochs=args.epochs, seed=args.seed)
        report(stages, args)
    except (StageFailed, Camera3DError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same call goes on", file=sys.stderr)
        return 130
    if args.install:
        shutil.copyfile(weights_of(stages), WEIGHTS)
        print(f"installed {WEIGHTS}", file=sys.stderr)
    return 0


def report(stages: Stages, args: argparse.Namespace) -> None:
    """Publish how the teacher was made and how good it became."""
    logged = scalars(stages.folder / NAME)
    curve = curve_of(logged)
    if not curve:
        raise StageFailed(f"{stages.folder / NAME} has no evaluation yet: train on, then report.")
    frames = {
        split: len(load_or_build_index(stages.folder / "data", VERSION, split).columns["sample_token"])
        for split in (TRAIN_SPLIT, VAL_SPLIT)
    }
    weights = weights_of(stages)
    options = f"--scenes {args.scenes} --held-out {args.held_out} --epochs {args.epochs} --seed {args.seed}"
    per_class = stages.metrics(NAME)["per_class"]
    size = "×".join(map(str, SCENES["image_hw"]))
    learnt, scored = frames[TRAIN_SPLIT], frames[VAL_SPLIT]
    megabytes = weights.stat().st_size / 1e6
    body = [
        f"`python benchmarks/demo_teacher.py {options} --install`",
        f"{args.scenes} synthetic scenes of {SCENES['seconds']} s, {size} images, seed {args.seed}:"
        f" {learnt} frames to train on, {scored} frames of {args.held_out} held-out scenes to score on."
        f" {hours_of(logged):.1f} hours of training steps. Weights: {megabytes:.1f} MB, sha256"
        f" {sha256(weights)[:16]}….",
        "Held-out scenes, by epoch:",
        curve_table(curve),
        f"Average precision by class, after epoch {max(curve)}:",
        markdown_table(
            ["class", "AP", "ATE, m", "AVE, m/s"],
            [[row["name"], f"{row['ap']:.3f}", *_errors(row, "ATE", "AVE")] for row in per_class],
        ),
    ]
    publish("demo_teacher", "The demo's teacher", "\n\n".join(body))
    plot(curve, PICTURE)


def scalars(work_dir: Path) -> list[dict]:
    """What mmengine logged, over all starts of a training."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def curve_of(logged: Sequence[Mapping]) -> dict[int, Mapping]:
    """Metrics by epoch; the last word on an epoch that was scored twice."""
    return {entry["step"]: entry for entry in sorted(logged, key=lambda e: e["step"]) if "NDS" in entry}


def hours_of(logged: Sequence[Mapping]) -> float:
    """Hours of all steps; those between two entries took what the second entry's did on average."""
    seconds_of = {entry["step"]: entry["time"] for entry in logged if "loss" in entry}
    steps = sorted(seconds_of)
    between = zip(steps, [0, *steps], strict=False)
    return sum((step - before) * seconds_of[step] for step, before in between) / 3600


def curve_table(curve: Mapping[int, Mapping]) -> str:
    """A row an epoch."""
    header = ["epoch", "NDS", "mAP", *(f"{name}, {unit}" for name, unit in ERRORS.items())]
    names = ("NDS", "mAP", *ERRORS)
    return markdown_table(
        header, [[epoch, *(f"{entry[name]:.3f}" for name in names)] for epoch, entry in curve.items()]
    )


def plot(curve: Mapping[int, Mapping], path: Path) -> None:
    """NDS and mAP, and the true-positive errors, by epoch."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    titles = ("held-out scenes", "true-positive errors")
    for axis, names, title in zip(axes, (("NDS", "mAP"), tuple(ERRORS)), titles, strict=True):
        for name in names:
            axis.plot(list(curve), [entry[name] for entry in curve.values()], marker="o", label=name)
        axis.set(xlabel="epoch", title=title, xticks=list(curve), ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _errors(row: Mapping, *names: str) -> list[str]:
    found = [row["tp_errors"][name] for name in names]
    return ["" if value is None else f"{value:.3f}" for value in found]


if __name__ == "__main__":
    sys.exit(main())
