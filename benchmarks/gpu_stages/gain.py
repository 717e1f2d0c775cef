"""What distillation gains where a training takes a minute: rows of benchmarks/distillation_gain.py."""

from __future__ import annotations

import runpy
import sys
import time
from collections.abc import Iterator, Mapping
from unittest import mock

import distillation_gain
from distillation_gain import WORLD, Training
from gain_rows import ALONE, CONFIGS, FD3D, HEATMAP, Row, reference, rows

from demo.stages import SCENES, StageFailed, Stages
from gpu_stages.stage import Context, Measurement
from gpu_stages.stage import Row as Shown

ROWS = (ALONE, FD3D, HEATMAP, reference())
SEEDS = 3
TINY_WORLD = {"scenes": 2, "held_out": 1, "seed": 1, "seconds": 1, "image_hw": SCENES["image_hw"]}


def measurements(context: Context) -> Iterator[Measurement]:
    """See Stage. Every row with the first seed, then every row with the next one."""
    # All cores for each: one training runs at a time.
    stages = (Here if context.tiny else Stages)(context.work / "gain", threads=1 if context.tiny else None)
    world = TINY_WORLD if context.tiny else WORLD
    by_name, scores = {row.name: row for row in rows()}, {}
    for seed in range(1 if context.tiny else SEEDS):
        for name in (ALONE, FD3D) if context.tiny else ROWS:
            yield (
                f"{name}, seed {seed}",
                lambda row=by_name[name], seed=seed: trained(stages, world, row, seed, scores),
            )


def trained(
    stages: Stages,
    world: Mapping[str, object],
    row: Row,
    seed: int,
    scores: dict[tuple[str, int], float],
) -> Shown:
    """Train and score one student at the short horizon, from the shipped teacher's store."""
    stages.generate(**world)
    training = Training(row, "short", CONFIGS / "teacher.pth")
    name = training.folder(seed)
    start = time.perf_counter()
    with mock.patch.object(distillation_gain, "processes", return_value=1):
        seconds = distillation_gain.train(stages, training, seed, name)
    metrics = stages.metrics(name)
    scores[row.name, seed] = nds = metrics["nds"]
    alone = scores.get((ALONE, seed))
    return {
        "seed": seed,
        "NDS": nds,
        "mAP": metrics["mean_ap"],
        "NDS over the student alone": None if alone is None or row.name == ALONE else nds - alone,
        "s of training and scoring": seconds,
        "s with its store": time.perf_counter() - start,
    }


class Here(Stages):
    """Runs the commands in this process: for a small run, where starting them takes longer than they do."""

    def _wait_for(self, name: str, words: list[str], environment: Mapping[str, str]) -> None:
        as_module = words[0] == "-m"
        arguments = words[1:] if as_module else words
        run = runpy.run_module if as_module else runpy.run_path
        try:
            with mock.patch.object(sys, "argv", arguments):
                run(arguments[0], run_name="__main__")
        except SystemExit as left:
            if left.code:
                raise StageFailed(f"{name} ended with exit code {left.code}") from left
