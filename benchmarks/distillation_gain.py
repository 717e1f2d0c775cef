"""Whether distillation pays: a student alone and with each method and term, over several seeds.

    python benchmarks/distillation_gain.py --work work/gain

Synthetic scenes, a teacher trained on them, its stores, then students of equal steps, scored on held-out
scenes by the devkit. Every training is a stage that is run once: what was stopped goes on with the same
command, and the table in benchmarks/results/distillation_gain.md grows after each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import ROOT, markdown_table, publish
from stages import StageFailed, Stages

CONFIGS = ROOT / "configs" / "demo"
FD3D_TERMS = ("pv_generation", "bev_generation", "focal", "query")


@dataclass(frozen=True)
class Variant:
    """How a student is trained.

    Attributes:
        config: below configs/demo; None: the student alone.
        profile: of the store, or live_fd for the teacher in the loop.
        settings: changes of the config.
    """

    name: str
    config: str | None = None
    profile: str = "exact"
    settings: Mapping[str, object] = field(default_factory=dict)


def variants() -> list[Variant]:
    """In the order they are run: the main comparison first."""
    only = {term: {"distiller.terms": {"_delete_": True, term: {}}} for term in FD3D_TERMS}
    # A term of weight zero: what is left of distillation is where the student's head starts.
    head = {"distiller.terms": {"_delete_": True, "bev_heatmap": {"weight": 0.0}}}
    return [
        Variant("student alone"),
        Variant("fd3d", "distill_fd3d.py"),
        Variant("heatmap", "distill_heatmap.py"),
        Variant("teacher's head as a start, no term", "distill_heatmap.py", settings=head),
        *(Variant(f"fd3d, {term} alone", "distill_fd3d.py", settings=only[term]) for term in FD3D_TERMS),
        Variant("fd3d, compact store", "distill_fd3d.py", "compact"),
        Variant("fd3d, focal store", "distill_fd3d.py", "focal"),
        Variant("fd3d, live_fd", "distill_fd3d.py", "live_fd"),
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="work/gain", help="folder for everything (default work/gain)")
    parser.add_argument("--scenes", type=int, default=40, help="a fifth of them held out (default 40)")
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--student-epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of every process (default 1)")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="run part I of N of the seeds")
    args = parser.parse_args(argv)

    stages = Stages(Path(args.work).resolve(), args.threads)
    part, parts = map(int, args.part.split("/"))
    try:
        stages.generate(scenes=args.scenes, seconds=10, image_hw=(252, 448), seed=1)
        stages.train("teacher", CONFIGS / "teacher.py", settings=_epochs(args.teacher_epochs))
        checkpoint = stages.folder / "teacher" / "last.pth"
        for profile in ("exact", "compact", "focal"):
            stages.dump(profile, CONFIGS / "teacher.py", checkpoint, profile=profile)
        for seed in range(args.seeds):
            for variant in variants():
                if seed % parts == part - 1:
                    student(stages, variant, seed, args.student_epochs)
                    report(stages, args)
    except StageFailed as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def student(stages: Stages, variant: Variant, seed: int, epochs: int) -> None:
    """Train and score one student."""
    settings = _epochs(epochs) | dict(variant.settings)
    name = run_name(variant, seed)
    if variant.config is None:
        stages.train(name, CONFIGS / "student.py", seed=seed, settings=settings)
        return
    source: dict[str, object] = {"cache": stages.folder / f"{variant.profile}.zarr"}
    if variant.profile == "live_fd":
        checkpoint = stages.folder / "teacher" / "last.pth"
        source = {"teacher-source": "live_fd", "teacher-checkpoint": checkpoint}
    stages.distil(name, CONFIGS / variant.config, seed=seed, source=source, settings=settings)


def run_name(variant: Variant, seed: int) -> str:
    """The folder of one training."""
    words = "".join(c if c.isalnum() else "-" for c in variant.name)
    return f"{words}-{seed}"


def report(stages: Stages, args: argparse.Namespace) -> None:
    """The table of what has been run so far."""
    teacher = stages.metrics("teacher")
    rows = [["teacher", 1, f"{teacher['nds']:.4f}", f"{teacher['mean_ap']:.4f}", "", ""]]
    alone: dict[int, float] = {}
    for variant in variants():
        found = {
            seed: stages.metrics(run_name(variant, seed))
            for seed in range(args.seeds)
            if (stages.folder / f"{run_name(variant, seed)}.json").is_file()
        }
        if not found:
            continue
        if variant.config is None:
            alone = {seed: metrics["nds"] for seed, metrics in found.items()}
        gains = [metrics["nds"] - alone[seed] for seed, metrics in found.items() if seed in alone]
        rows.append(
            [
                variant.name,
                len(found),
                _spread([metrics["nds"] for metrics in found.values()]),
                _spread([metrics["mean_ap"] for metrics in found.values()]),
                _spread(gains) if variant.config else "",
                " ".join(f"{gain:+.4f}" for gain in gains) if variant.config else "",
            ]
        )
    body = [
        f"{args.scenes} synthetic scenes of 10 s (252×448 images), a fifth held out. Teacher:"
        f" configs/demo/teacher.py, {args.teacher_epochs} epochs. Students: configs/demo/student.py,"
        f" {args.student_epochs} epochs each, the same seeds and steps. Mean ± standard deviation over the"
        " seeds; gains compare equal seeds.",
        markdown_table(["", "seeds", "NDS", "mAP", "NDS gained", "by seed"], rows),
    ]
    publish("distillation_gain", "What distillation gains", "\n\n".join(body))


def _epochs(count: int) -> dict[str, object]:
    return {"train_cfg.max_epochs": count, "train_cfg.val_interval": count}


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


if __name__ == "__main__":
    sys.exit(main())
