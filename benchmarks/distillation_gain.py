"""Whether distillation pays: a student alone and with each method and term, over several seeds.

    python benchmarks/distillation_gain.py --work work/gain

Synthetic scenes of another seed than the teacher's, the shipped teacher's stores of them, then students of
equal steps, scored on held-out scenes by the devkit. Every finished training leaves a line in
benchmarks/results/distillation_gain.jsonl and is not done again, here or on another machine that has the
file; benchmarks/results/distillation_gain.md is made of these lines alone. Given twice at the same time, the
command shares the trainings out: one thread each, they use two cores better than one of them would.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common import RESULTS, commit, processor, publish
from gain_records import Record, RecordInvalid, Records, digest_of, step_table, table
from gain_rows import ALONE, CONFIGS, LAYER, LIVE, Row, reference, rows, steps

from camera3d.errors import Camera3DError
from demo.stages import BATCH_SIZE, SCENES, StageFailed, Stages, processes, schedule, sha256, stop_like_ctrl_c

WORLD = {"scenes": 140, "held_out": 20, "seed": 1, **SCENES}
EPOCHS = {"short": 1, "long": 4}
SEEDS = {"short": 3, "long": 5}
TEACHER = "teacher"
RECORDS = Records(RESULTS / "distillation_gain.jsonl")


@dataclass(frozen=True)
class Training:
    """A row at a horizon, taught by the weights in a file."""

    row: Row
    horizon: str
    teacher: Path

    @property
    def settings(self) -> dict[str, object]:
        """Changes of the configs that all rows share."""
        return schedule(self.row.epochs or EPOCHS[self.horizon], BATCH_SIZE)

    @cached_property
    def digest(self) -> str:
        """Of all that decides the result but the seed."""
        facts = {"config": self.row.resolved(self.settings), "scenes": WORLD}
        if self.row.source is not None:
            facts |= {"source": self.row.source, "teacher": sha256(self.teacher)}
        if self.row.head is not None:
            facts["head"] = self.row.resolved_head()
        return digest_of(facts)

    def folder(self, seed: int) -> str:
        """Other settings have another one."""
        return f"{_slug(self.row.name)}-{self.horizon}-{seed}-{self.digest[:8]}"


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    stages = Stages(Path(args.work).resolve(), args.threads)
    # The index of the scenes stays with them.
    os.environ.setdefault("XDG_CACHE_HOME", str(stages.folder / "cache"))
    stop_like_ctrl_c()
    try:
        if not args.report:
            stages.generate(**WORLD)
            score_teacher(stages, args.teacher)
            for training, seed in chosen(args):
                if train_once(stages, training, seed, training.folder(seed)):
                    report(args.teacher)
        report(args.teacher)
    except (StageFailed, RecordInvalid, Camera3DError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same call goes on", file=sys.stderr)
        return 130
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="work/gain", help="folder for everything (default work/gain)")
    parser.add_argument(
        "--teacher",
        type=Path,
        default=CONFIGS / "teacher.pth",
        help="weights for configs/demo/teacher.py (default configs/demo/teacher.pth)",
    )
    parser.add_argument("--horizon", choices=tuple(EPOCHS), help="one of them (default: both, short first)")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these (default: all of the horizon)")
    parser.add_argument("--seeds", type=int, help="of each row (default 3 short, 5 long)")
    parser.add_argument("--threads", type=int, default=1, help="of every process (default 1)")
    parser.add_argument("--report", action="store_true", help="only write the table of the records there are")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.rows or ()) - {row.name for row in rows()})
    if unknown:
        known = "\n  ".join(row.name for row in rows())
        parser.error(f"--rows {', '.join(unknown)}: no such row. There are\n  {known}")
    args.teacher = args.teacher.resolve()
    return args


def chosen(args: argparse.Namespace) -> list[tuple[Training, int]]:
    """What to train, in order: every row with the first seed, then every row with the next one."""
    return [
        (training, seed)
        for horizon in ([args.horizon] if args.horizon else EPOCHS)
        for seed in range(args.seeds or SEEDS[horizon])
        for training in trainings(horizon, args.teacher)
        if args.rows is None or training.row.name in args.rows
    ]


def trainings(horizon: str, teacher: Path) -> list[Training]:
    """The rows of a horizon."""
    return [
        Training(row, horizon, teacher)
        for row in rows()
        if (row.epochs is None if horizon == "short" else row.long)
    ]


def train_once(stages: Stages, training: Training, seed: int, name: str, records: Records = RECORDS) -> bool:
    """Train, score and record a student, unless that is done or under way; returns whether it was trained."""
    if (training.digest, seed) in records.read() or stages.under_way(name):
        return False
    seconds = train(stages, training, seed, name)
    record(stages, name, training.row.name, training.horizon, seed, training.digest, seconds, records)
    return True


def train(stages: Stages, training: Training, seed: int, name: str) -> float:
    """Train and score one student, making the store it reads where there is none; returns its seconds."""
    row = training.row
    settings = {**training.settings, **row.overrides}
    if row.source is None:
        return stages.train(name, CONFIGS / row.config, seed=seed, settings=settings)
    source: dict[str, object]
    if row.source == LIVE:
        source = {"teacher-source": LIVE, "teacher-checkpoint": training.teacher}
    else:
        store = f"{row.source}-{sha256(training.teacher)[:8]}"
        stages.dump(store, CONFIGS / row.teacher, training.teacher, profile=row.source, processes=processes())
        if row.head is not None:
            stages.head(f"{store}-{LAYER}", CONFIGS / row.head, store=store, layer=LAYER)
        source = {"cache": stages.folder / f"{store}.zarr"}
    return stages.distil(name, CONFIGS / row.config, seed=seed, source=source, settings=settings)


def score_teacher(stages: Stages, teacher: Path) -> None:
    """The teacher's record, once."""
    digest = teacher_digest(teacher)
    if (digest, 0) not in RECORDS.read():
        name = f"{TEACHER}-{digest[:8]}"
        seconds = stages.evaluate(name, CONFIGS / "teacher.py", teacher)
        record(stages, name, TEACHER, "", 0, digest, seconds)


def teacher_digest(teacher: Path) -> str:
    """Of what decides the teacher's score."""
    row = Row(name=TEACHER, config="teacher.py", source=None)
    config = row.resolved({})
    facts = {name: config[name] for name in ("model", "inputs")}
    return digest_of({"config": facts, "scenes": WORLD, "teacher": sha256(teacher)})


def record(
    stages: Stages,
    name: str,
    row: str,
    horizon: str,
    seed: int,
    digest: str,
    seconds: float,
    records: Records = RECORDS,
) -> None:
    """Keep the score of a finished stage."""
    metrics = stages.metrics(name)
    records.add(
        Record(
            row=row,
            horizon=horizon,
            seed=seed,
            digest=digest,
            nds=metrics["nds"],
            mean_ap=metrics["mean_ap"],
            tp_errors=metrics["tp_errors"],
            seconds=round(seconds, 1),
            processor=processor(),
            commit=commit(),
        )
    )


def report(teacher: Path) -> None:
    """Write the table of the records that today's rows, scenes and teacher have."""
    found = RECORDS.read()
    used: list[Record] = []
    samples = (WORLD["scenes"] - WORLD["held_out"]) * WORLD["seconds"] * 2
    body = [
        f"{WORLD['scenes']} synthetic scenes of {WORLD['seconds']} s, seed {WORLD['seed']},"
        f" {WORLD['held_out']} held out to score on. Teacher: {teacher.name}, which has seen other"
        f" scenes. Students: configs/demo, batches of {BATCH_SIZE}, equal seeds and steps for all rows of a"
        " horizon but for those of equal time, which take more. Mean ± standard error"
        " over the seeds; gains compare equal seeds.",
    ]
    teachers = found.get((teacher_digest(teacher), 0))
    if teachers:
        used.append(teachers)
        errors = ", ".join(f"{name} {value:.3f}" for name, value in teachers.tp_errors.items())
        body.append(
            f"Teacher on the held-out scenes: NDS {teachers.nds:.4f}, mAP {teachers.mean_ap:.4f}, {errors}."
        )
    baselines = {ALONE: "alone", reference(): "start only"}
    for horizon, epochs in EPOCHS.items():
        by_row = {
            training.row.name: {seed: r for (digest, seed), r in found.items() if digest == training.digest}
            for training in trainings(horizon, teacher)
        }
        if not any(by_row.values()):
            continue
        used += [r for records in by_row.values() for r in records.values()]
        body += [
            f"## {horizon.capitalize()}: {epochs * samples // BATCH_SIZE} steps",
            table(by_row, baselines=baselines),
            "Step by step:",
            step_table(by_row, steps()),
        ]
    left = len(found) - len({(r.digest, r.seed) for r in used})
    machines = sorted({r.processor for r in used})
    body.append(
        f'"Start only" is "{reference()}". Seconds are of one training with its evaluation, mean;'
        f" another training may have run beside it. Machines: {', '.join(machines) or 'none'}."
        f" Records of other settings, left out: {left}."
    )
    publish("distillation_gain", "What distillation gains", "\n\n".join(body))


def _slug(name: str) -> str:
    words = "".join(c if c.isalnum() or c == "_" else " " for c in name).split()
    return "-".join(words)


if __name__ == "__main__":
    sys.exit(main())
