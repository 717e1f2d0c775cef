"""The demo's teacher: its config, the weights that are shipped, and how such weights are trained."""

from __future__ import annotations

from pathlib import Path

from camera3d.config_files import configs_folder
from demo.stages import BATCH_SIZE, SCENES, Stages, processes, schedule

CONFIG = configs_folder() / "demo" / "teacher.py"
WEIGHTS = CONFIG.with_suffix(".pth")
SEED = 7  # of its scenes; those that it is dumped over have others
NAME = "run"


def train(
    stages: Stages, *, scenes: int, held_out: int, epochs: int, seed: int = SEED, every: int = 2
) -> float:
    """Scenes and a training, scored after every so many epochs; returns the seconds of the training."""
    stages.generate(scenes=scenes, held_out=held_out, seed=seed, **SCENES)
    sharing = processes()
    settings = schedule(epochs, BATCH_SIZE // sharing)
    # A checkpoint takes the second that ten steps take.
    rare = {"train_cfg.val_interval": min(every, epochs), "checkpoint_interval": 500}
    return stages.train(NAME, CONFIG, settings=settings | rare, processes=sharing)


def weights_of(stages: Stages) -> Path:
    """What a training left."""
    return stages.folder / NAME / "last.pth"
