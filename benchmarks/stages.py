"""The whole pipeline in stages that are run once: what the demo and the gain benchmark are made of.

Every stage is one of the project's commands in its own process. A finished stage leaves a small JSON file
beside its results and is not run again by the same command; a stage that was stopped goes on.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT

VERSION = "v1.0-synthetic"
BATCH_SIZE = 2  # of configs/demo
TRAIN_SPLIT, VAL_SPLIT = "synthetic_train", "synthetic_val"


def processes() -> int:
    """How many share a training: two on a CPU, where small operations gain little from threads, or one."""
    return 1 if torch.cuda.is_available() else 2


def schedule(epochs: int, sharing: int = 1) -> dict[str, object]:
    """Settings for so many epochs, scored after the last, the demo configs' batch dealt to `sharing`."""
    shared = {"train_dataloader.batch_size": BATCH_SIZE // sharing} if sharing > 1 else {}
    return {"train_cfg.max_epochs": epochs, "train_cfg.val_interval": epochs, **shared}


class StageFailed(Exception):
    """A command ended with an error, or its results were made by another command."""


@dataclass(frozen=True)
class Stages:
    """A folder with results of stages.

    Args:
        folder: of everything the stages write.
        threads: of every process; None leaves it to torch.
    """

    folder: Path
    threads: int | None = None

    def run(self, name: str, command: Sequence[str | Path], *, processes: int = 1) -> float:
        """Run a command unless it has run before; returns the seconds it took.

        Args:
            processes: above one, torchrun starts so many, and the machine's cores are dealt out to them.

        Raises:
            StageFailed: the command failed, or `name` was made by another command.
        """
        words = [str(word) for word in command]
        threads = self.threads
        if processes > 1:
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            words = torchrun + words
            threads = threads or max(1, (os.cpu_count() or 1) // processes)
        marker = self.folder / f"{name}.json"
        if marker.is_file():
            earlier = json.loads(marker.read_text())
            if earlier["command"] != words:
                raise StageFailed(
                    f"{marker} was made by another command:\n  {shlex.join(earlier['command'])}\nRemove"
                    f" {self.folder}, or give another folder."
                )
            print(f"{name}: reused, took {earlier['seconds']:.0f} s", file=sys.stderr)
            return earlier["seconds"]
        self.folder.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {shlex.join(words)}", file=sys.stderr)
        # What libraries have to say about their future is not for whoever watches the stages.
        environment = dict(os.environ) | {"PYTHONWARNINGS": "ignore"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *words], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            raise StageFailed(f"{name} ended with exit code {done.returncode}; its command is above.")
        seconds = time.perf_counter() - start
        partial = marker.with_suffix(".tmp")
        partial.write_text(json.dumps({"command": words, "seconds": seconds}))
        os.replace(partial, marker)
        return seconds

    def generate(
        self, *, scenes: int, seconds: float, image_hw: tuple[int, int], seed: int, **more: object
    ) -> float:
        """Synthetic scenes below `data`; `more` are other options of the generator."""
        size = "x".join(map(str, image_hw))
        options = {"out": self.folder / "data", "scenes": scenes, "seconds": seconds, "image-size": size}
        return self.run("data", ["-m", "camera3d.data.synthetic", *_flags(options | {"seed": seed} | more)])

    def train(
        self,
        name: str,
        config: Path,
        *,
        seed: int = 0,
        settings: Mapping[str, object] | None = None,
        val_split: str | None = None,
        processes: int = 1,
    ) -> float:
        """A detector on the ground truth, with its metrics on the val split below `name`/validation.

        With several processes each takes its part of the config's batch.
        """
        command = [ROOT / "train" / "train_detector.py", config, *self._training(name, seed), "--resume"]
        scored = ["--val-split", val_split] if val_split else []
        return self.run(name, [*command, *scored, *_settings(settings)], processes=processes)

    def dump(self, name: str, config: Path, checkpoint: Path, *, profile: str, processes: int = 1) -> float:
        """The store `name`.zarr of the train split."""
        options = {
            "dataroot": self.folder / "data",
            "version": VERSION,
            "split": TRAIN_SPLIT,
            "checkpoint": checkpoint,
            "profile": profile,
            "out": self.folder / f"{name}.zarr",
            "threads": self.threads or 1,
        }
        script = ROOT / "extract" / "dump_teacher.py"
        return self.run(name, [script, config, *_flags(options)], processes=processes)

    def distil(
        self,
        name: str,
        config: Path,
        *,
        seed: int = 0,
        source: Mapping[str, object],
        settings: Mapping[str, object] | None = None,
        processes: int = 1,
    ) -> float:
        """A student with a teacher's targets; `source` are the options that say where they come from."""
        script = ROOT / "train" / "distill_from_cache.py"
        command = [script, config, *self._training(name, seed), *_flags(source), "--resume"]
        return self.run(name, [*command, *_settings(settings)], processes=processes)

    def metrics(self, name: str) -> dict[str, object]:
        """What the evaluation at the end of a training said."""
        return json.loads((self.folder / name / "validation" / "metrics.json").read_text())

    def _training(self, name: str, seed: int) -> list[str]:
        options = {"dataroot": self.folder / "data", "version": VERSION, "work-dir": self.folder / name}
        return _flags(options | {"seed": seed})


def _flags(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _settings(settings: Mapping[str, object] | None) -> list[str]:
    if not settings:
        return []
    return ["--cfg-options", *(f"{name}={value}" for name, value in settings.items())]
