"""Whether distillation pays for DETR3D: a student alone, with the teacher's head as a start, and with FD3D.

    python benchmarks/detr3d_gain.py --work work/gain

The scenes of benchmarks/distillation_gain.py, in the same folder. The teacher is trained on their training
split, as a user's is on nuScenes'. Finished trainings are kept in benchmarks/results/detr3d_gain.jsonl and
not done again; given twice, the command shares the trainings out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from common import RESULTS, publish
from distillation_gain import EPOCHS, WORLD, Training, train_once
from gain_records import RecordInvalid, Records, step_table, table
from gain_rows import ALONE, CONFIGS, FD3D, detr3d_rows, start_only

from camera3d.errors import Camera3DError
from demo.stages import BATCH_SIZE, StageFailed, Stages, schedule, stop_like_ctrl_c

RECORDS = Records(RESULTS / "detr3d_gain.jsonl")
TEACHER = "detr3d-teacher"
TEACHER_EPOCHS = 12
SEEDS = 3
START = start_only("head")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", default="work/gain", help="folder for everything (default work/gain)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"of each row (default {SEEDS})")
    parser.add_argument("--horizon", choices=tuple(EPOCHS), default="long", help="default long")
    parser.add_argument("--threads", type=int, default=1, help="of every process (default 1)")
    args = parser.parse_args(argv)
    stages = Stages(Path(args.work).resolve(), args.threads)
    os.environ.setdefault("XDG_CACHE_HOME", str(stages.folder / "cache"))
    stop_like_ctrl_c()
    try:
        stages.generate(**WORLD)
        stages.train(TEACHER, CONFIGS / "detr3d_teacher.py", settings=schedule(TEACHER_EPOCHS, BATCH_SIZE))
        trainings = [
            Training(row, args.horizon, stages.folder / TEACHER / "last.pth") for row in detr3d_rows()
        ]
        for seed in range(args.seeds):
            for training in trainings:
                train_once(stages, training, seed, f"detr3d-{training.folder(seed)}", RECORDS)
        report(stages, trainings)
    except (StageFailed, RecordInvalid, Camera3DError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same call goes on", file=sys.stderr)
        return 130
    return 0


def report(stages: Stages, trainings: list[Training]) -> None:
    """Publish the records that today's rows, scenes and teacher have."""
    found = RECORDS.read()
    by_row = {
        training.row.name: {seed: r for (digest, seed), r in found.items() if digest == training.digest}
        for training in trainings
    }
    scored = stages.metrics(TEACHER)
    steps = [(ALONE, START), (START, FD3D), (ALONE, FD3D)]
    body = [
        f"{WORLD['scenes']} synthetic scenes, {WORLD['held_out']} held out to score on. Teacher:"
        f" configs/demo/detr3d_teacher.py, {TEACHER_EPOCHS} epochs on the others, NDS {scored['nds']:.4f},"
        f" mAP {scored['mean_ap']:.4f}. Students: configs/demo/detr3d_student.py on the same scenes, batches"
        f" of {BATCH_SIZE}, equal seeds and steps. Mean ± standard error; gains compare equal seeds.",
        table(by_row, baselines={ALONE: "alone", START: "start only"}),
        "Step by step:",
        step_table(by_row, steps),
    ]
    publish("detr3d_gain", "What distillation gains a DETR3D", "\n\n".join(body))


if __name__ == "__main__":
    sys.exit(main())
