"""The whole pipeline in stages that are run once: what the demo and the gain benchmark are made of.

Every stage is one of the project's commands in its own process. A finished stage leaves a small JSON file
beside its results and is not run again by the same command; a stage that was stopped goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import torch

from demo import ROOT
from synthetic_nuscenes import TRAIN_SPLIT, VAL_SPLIT, VERSION

BATCH_SIZE = 2  # of all processes together
# Small images and short scenes: what makes a detector learn is many different frames.
SCENES = {"seconds": 5, "image_hw": (126, 224)}


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


def processes() -> int:
    """How many share a training: two on a CPU, where small operations gain little from threads, or one."""
    return 1 if torch.cuda.is_available() else min(2, cores())


def schedule(epochs: int, batch_size: int) -> dict[str, object]:
    """Settings for this many epochs, scored after the last, of this many samples a process and step."""
    return {
        "train_cfg.max_epochs": epochs,
        "train_cfg.val_interval": epochs,
        "train_dataloader.batch_size": batch_size,
    }


def stop_like_ctrl_c() -> None:
    """Let a termination unwind as Ctrl-C does, so that no stage trains on without us."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


class StageFailed(Exception):
    """A command ended with an error, or its results were made by another command or from other files."""


@dataclass(frozen=True)
class Stages:
    """A folder with results of stages.

    Args:
        folder: of everything the stages write.
        threads: of every process; None leaves it to torch.
    """

    folder: Path
    threads: int | None = None
    _children: set[subprocess.Popen] = field(default_factory=set, repr=False, compare=False)
    _stopping: Event = field(default_factory=Event, repr=False, compare=False)

    def together(self, *lanes: Callable[[], None]) -> None:
        """Run several sequences of stages at the same time, each in its own order.

        When one fails, or we are stopped, the processes of the others are ended too.

        Raises:
            StageFailed: of the sequence that failed first.
        """
        with ThreadPoolExecutor(len(lanes)) as pool:
            running = [pool.submit(lane) for lane in lanes]
            try:
                done, _ = wait(running, return_when=FIRST_EXCEPTION)
                for lane in done:
                    lane.result()
            except BaseException:
                self._stopping.set()
                for child in tuple(self._children):
                    child.terminate()
                raise

    def run(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        makes: Path | None = None,
        reads: Sequence[Path] = (),
        processes: int = 1,
    ) -> float:
        """Run a command unless it has run before; returns the seconds it took, over all its starts.

        What it writes to stdout is in `name`.log.

        Args:
            makes: what must be there for the stage to count as done.
            reads: files that the stage is to be run again for when their content changes.
            processes: above one, torchrun starts so many, and the machine's cores are dealt out to them.

        Raises:
            StageFailed: the command failed, or `name` was made by another command or from other files.
        """
        words = [str(word) for word in command]
        threads = self.threads
        if processes > 1:
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            words = torchrun + words
            threads = threads or max(1, cores() // processes)
        # What libraries have to say about their future is not for whoever watches the stages.
        changes = {"PYTHONWARNINGS": "ignore"}
        if threads is not None:
            changes["OMP_NUM_THREADS"] = str(threads)
        made_of = {"command": words, "reads": {str(path): sha256(path) for path in reads}}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._turn(name):
            marker, unfinished = self.folder / f"{name}.json", self.folder / f"{name}.part.json"
            earlier = self._earlier(marker, made_of)
            if earlier is not None and (makes is None or makes.exists()):
                print(f"{name}: reused, took {earlier:.0f} s", file=sys.stderr)
                return earlier
            before = self._earlier(unfinished, made_of) or 0.0
            shown = [f"{key}={value}" for key, value in changes.items()] + [sys.executable, *words]
            print(f"{name}: {shlex.join(shown)}", file=sys.stderr)
            start = time.perf_counter()
            try:
                self._wait_for(name, words, dict(os.environ) | changes)
            finally:
                seconds = before + time.perf_counter() - start
                partial = marker.with_suffix(".tmp")
                partial.write_text(json.dumps(made_of | {"seconds": seconds}))
                os.replace(partial, unfinished)
            os.replace(unfinished, marker)
            return seconds

    def under_way(self, name: str) -> bool:
        """Whether another process is at a stage right now."""
        if not self._lock(name).exists():
            return False
        with self._lock(name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _lock(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """One process at a time runs a stage; the next one then finds it done."""
        with self._lock(name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{name}: another process works on it; waiting", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _earlier(self, marker: Path, made_of: Mapping[str, object]) -> float | None:
        """Seconds that a marker tells of. Raises StageFailed when it is of another command or other files."""
        if not marker.is_file():
            return None
        earlier = json.loads(marker.read_text())
        remedy = f"Remove {self.folder}, or give another folder."
        if earlier["command"] != made_of["command"]:
            raise StageFailed(
                f"{marker} was made by another command:\n  {shlex.join(earlier['command'])}\n{remedy}"
            )
        changed = [path for path, digest in made_of["reads"].items() if earlier["reads"].get(path) != digest]
        if changed:
            raise StageFailed(f"{', '.join(changed)}: changed since {marker} was made of it. {remedy}")
        return earlier["seconds"]

    def _wait_for(self, name: str, words: list[str], environment: dict[str, str]) -> None:
        log = self.folder / f"{name}.log"
        with log.open("w") as file:
            child = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment, stdout=file)
            self._children.add(child)
            try:
                # Told to stop between two stages: there was no process to end.
                if self._stopping.is_set():
                    child.terminate()
                code = child.wait()
            except BaseException:
                # torchrun ends its processes when it is told to, and only then.
                child.terminate()
                child.wait()
                raise
            finally:
                self._children.discard(child)
        if code:
            raise StageFailed(
                f"{name} ended with exit code {code}; its command is above, and its output is in {log}."
                " The same command continues from there."
            )

    def generate(
        self, *, scenes: int, held_out: int, seconds: float, image_hw: tuple[int, int], seed: int
    ) -> float:
        """Synthetic scenes below `data`, so many of them held out."""
        options = {
            "out": self.folder / "data",
            "scenes": scenes,
            "seconds": seconds,
            "image-size": "x".join(map(str, image_hw)),
            "seed": seed,
            "val-share": f"{held_out / scenes:.4f}",
        }
        command = ["-m", "synthetic_nuscenes", *_flags(options)]
        return self.run("data", command, makes=self.folder / "data")

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
        return self._trained(name, [*command, *scored, *_settings(settings)], processes)

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
        if torch.cuda.is_available():
            options["device"] = "cuda"
        command = [script, config, *_flags(options)]
        made = self.folder / f"{name}.zarr"
        return self.run(name, command, makes=made, reads=[checkpoint], processes=processes)

    def head(self, name: str, config: Path, *, store: str, layer: str) -> float:
        """A distillation head trained on the store `store`.zarr, which leaves a layer there."""
        place = self.folder / f"{store}.zarr"
        options = {"cache": place, "layer": layer, "threads": self.threads or 1}
        script = ROOT / "train" / "train_distillation_head.py"
        command = [script, config, *self._training(name, 0), *_flags(options), "--resume"]
        return self.run(name, command, makes=place / "layers" / layer / "sealed.json")

    def evaluate(self, name: str, config: Path, checkpoint: Path, *, processes: int = 1) -> float:
        """A detector's metrics on the val split, below `name`/validation as a training leaves them."""
        out = self.folder / name / "validation"
        options = {
            "checkpoint": checkpoint,
            "dataroot": self.folder / "data",
            "version": VERSION,
            "split": VAL_SPLIT,
            "out": out,
        }
        command = [ROOT / "train" / "evaluate.py", config, *_flags(options)]
        made = out / "metrics.json"
        return self.run(name, command, makes=made, reads=[checkpoint], processes=processes)

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
        return self._trained(name, [*command, *_settings(settings)], processes)

    def metrics(self, name: str) -> dict[str, object]:
        """What the evaluation at the end of a training said."""
        return json.loads((self.folder / name / "validation" / "metrics.json").read_text())

    def _trained(self, name: str, command: list, processes: int) -> float:
        metrics = self.folder / name / "validation" / "metrics.json"
        return self.run(name, command, makes=metrics, processes=processes)

    def _training(self, name: str, seed: int) -> list[str]:
        options = {"dataroot": self.folder / "data", "version": VERSION, "work-dir": self.folder / name}
        return _flags(options | {"seed": seed})


def sha256(path: Path) -> str:
    """Digest of a file's content. Raises StageFailed when there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StageFailed(f"{path} cannot be read: {error.strerror}. Name a file that is there.") from error


def _flags(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def _settings(settings: Mapping[str, object] | None) -> list[str]:
    if not settings:
        return []
    return ["--cfg-options", *(f"{name}={value}" for name, value in settings.items())]
