"""Whether distillation pays: a student alone and with each method and term, over several seeds.

    python benchmarks/distillation_gain.py --work work/gain

Synthetic scenes, a teacher trained on them, its stores, then students of equal steps, scored on held-out
scenes by the devkit. Every training is a stage that is run once: what was stopped goes on with the same
command, and the table in benchmarks/results/distillation_gain.md grows after each. Given twice at the same
time, the command shares the trainings out: one thread each, they use two cores better than one of them would.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common import ROOT, markdown_table, publish
from stages import BATCH_SIZE, SCENES, StageFailed, Stages, processes, schedule, stop_like_ctrl_c

from camera3d.data.synthetic.__main__ import image_size

HARDER = 20.0
MAIN = 4  # variants of the main comparison
FD3D_TERMS = ("pv_generation", "bev_generation", "focal", "query")


@dataclass(frozen=True)
class Variant:
    """How a student is trained.

    Attributes:
        config: in the folder of the configs; None: the student alone.
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
    # With weight 1 these two pull a hundredth as hard as the detection loss: benchmarks/term_gradients.py.
    weak = ("bev_generation", "focal")
    harder = {term: {"distiller.terms": {"_delete_": True, term: {"weight": HARDER}}} for term in weak}
    both = {f"distiller.terms.{term}.weight": HARDER for term in weak}
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
        *(
            Variant(f"fd3d, {term} × {HARDER:g} alone", "distill_fd3d.py", settings=harder[term])
            for term in weak
        ),
        Variant(f"fd3d, {' and '.join(weak)} × {HARDER:g}", "distill_fd3d.py", settings=both),
    ]


def trainings(seeds: int) -> list[tuple[Variant, int]]:
    """Every variant with every seed: the main comparison with all its seeds before anything else."""
    first, rest = variants()[:MAIN], variants()[MAIN:]
    return [(variant, seed) for part in (first, rest) for seed in range(seeds) for variant in part]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="work/gain", help="folder for everything (default work/gain)")
    parser.add_argument(
        "--configs",
        type=Path,
        default=ROOT / "configs" / "demo",
        help="folder with teacher.py, student.py, distill_fd3d.py, distill_heatmap.py (default configs/demo)",
    )
    parser.add_argument(
        "--image-size", type=image_size, default=SCENES["image_hw"], help="HxW (default 126x224)"
    )
    parser.add_argument("--scenes", type=int, default=90, help="of 5 s, a sixth held out (default 90)")
    parser.add_argument("--teacher-epochs", type=int, default=6)
    parser.add_argument("--student-epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of every process (default 1)")
    args = parser.parse_args(argv)

    args.configs = args.configs.resolve()
    stages = Stages(Path(args.work).resolve(), args.threads)
    stop_like_ctrl_c()
    try:
        size = SCENES | {"image_hw": args.image_size}
        stages.generate(scenes=args.scenes, seed=1, **size)
        sharing = processes()
        settings = schedule(args.teacher_epochs, BATCH_SIZE // sharing)
        stages.train("teacher", args.configs / "teacher.py", settings=settings, processes=sharing)
        checkpoint = stages.folder / "teacher" / "last.pth"
        for profile in ("exact", "compact", "focal"):
            stages.dump(profile, args.configs / "teacher.py", checkpoint, profile=profile, processes=sharing)
        for variant, seed in trainings(args.seeds):
            if not stages.under_way(run_name(variant, seed)):
                student(stages, args, variant, seed)
                report(stages, args)
    except StageFailed as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same call goes on", file=sys.stderr)
        return 130
    return 0


def student(stages: Stages, args: argparse.Namespace, variant: Variant, seed: int) -> None:
    """Train and score one student."""
    settings = schedule(args.student_epochs, BATCH_SIZE) | dict(variant.settings)
    name = run_name(variant, seed)
    if variant.config is None:
        stages.train(name, args.configs / "student.py", seed=seed, settings=settings)
        return
    source: dict[str, object] = {"cache": stages.folder / f"{variant.profile}.zarr"}
    if variant.profile == "live_fd":
        checkpoint = stages.folder / "teacher" / "last.pth"
        source = {"teacher-source": "live_fd", "teacher-checkpoint": checkpoint}
    stages.distil(name, args.configs / variant.config, seed=seed, source=source, settings=settings)


def run_name(variant: Variant, seed: int) -> str:
    """The folder of one training."""
    words = "".join(c if c.isalnum() else "-" for c in variant.name)
    return f"{words}-{seed}"


def report(stages: Stages, args: argparse.Namespace) -> None:
    """The table of what has been run so far."""
    teacher = stages.metrics("teacher")
    took = json.loads((stages.folder / "teacher.json").read_text())["seconds"]
    row = ["teacher", 1, f"{teacher['nds']:.4f}", f"{teacher['mean_ap']:.4f}", "", "", "", f"{took:.0f}"]
    rows = [row]
    alone: dict[int, dict] = {}
    for variant in variants():
        names = {seed: run_name(variant, seed) for seed in range(args.seeds)}
        done = {seed: stages.folder / f"{name}.json" for seed, name in names.items()}
        found = {seed: stages.metrics(names[seed]) for seed, marker in done.items() if marker.is_file()}
        if not found:
            continue
        alone = alone or (found if variant.config is None else {})
        compared = [seed for seed in found if variant.config and seed in alone]
        gains = {
            key: [found[seed][key] - alone[seed][key] for seed in compared] for key in ("nds", "mean_ap")
        }
        rows.append(
            [
                variant.name,
                len(found),
                _spread([metrics["nds"] for metrics in found.values()]),
                _spread([metrics["mean_ap"] for metrics in found.values()]),
                _spread(gains["nds"]),
                " ".join(f"{gain:+.4f}" for gain in gains["nds"]),
                _spread(gains["mean_ap"]),
                f"{statistics.mean(json.loads(done[seed].read_text())['seconds'] for seed in found):.0f}",
            ]
        )
    body = [
        f"{args.scenes} synthetic scenes of 5 s ({'×'.join(map(str, args.image_size))} images), a sixth held"
        f" out. Detectors of configs/{args.configs.name}. Teacher: {args.teacher_epochs} epochs. Students:"
        f" {args.student_epochs} epochs on {args.threads} thread, the same seeds and steps for all; `fd3d`"
        " and `heatmap` are distill_fd3d.py and distill_heatmap.py as they are. Mean ± standard"
        " deviation over the seeds; gains compare equal seeds.",
        markdown_table(["", "seeds", "NDS", "mAP", "NDS gained", "by seed", "mAP gained", "seconds"], rows),
        "Seconds are of one training with its evaluation, mean; other trainings may have run beside it.",
    ]
    publish("distillation_gain", "What distillation gains", "\n\n".join(body))


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.4f}" if values else ""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


if __name__ == "__main__":
    sys.exit(main())
