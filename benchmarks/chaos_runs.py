"""The commands themselves, on small scenes: dumps and trainings that are killed, or meet what must stop them.

Each trial lets one go wrong once at a random moment, and runs the same command again (a training with
`--resume`). Asked: does it end with what was never disturbed, the store's bytes and the student's weights?
Processes are forked from one that has imported everything: real ones, without the seconds that imports take.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chaos_faults import files_of_at_most, flipped_byte
from chaos_kills import begin, ended
from chaos_stores import contents
from chaos_trials import CRASHED, HEALED, LOST, SILENT
from common import ROOT

if TYPE_CHECKING:
    from train_cases import Workshop

sys.path[:0] = [str(ROOT / "tests")]
TINY = ROOT / "tests" / "test_extract" / "tiny_teacher.py"
DUMP, TWO_DUMPS, DUMP_WORKER = "dump", "two dumps, one killed", "data worker of a dump"
TRAINING, TRAINING_WORKER = "training", "data worker of a training"
NAN, FULL, CORRUPT = "NaN in a training", "full disk in a training", "corrupt sample in a training"
KINDS = (DUMP, TRAINING, DUMP_WORKER, TRAINING_WORKER, TWO_DUMPS, NAN, TRAINING, FULL, TWO_DUMPS, CORRUPT)
STOPPED = 2  # an entry script's status when it has said what a user can put right
EPOCHS, CHECKPOINT_EVERY = 2, 2


class Runs:
    """See the module."""

    limit_s = 600.0

    def __init__(self, folder: Path) -> None:
        import torch
        import train_cases  # noqa: F401  here, not in every process that is forked

        from extract import dump_teacher, run  # noqa: F401

        torch.set_num_threads(1)
        os.environ["XDG_CACHE_HOME"] = str(folder)  # where indices are kept
        self._folder = folder
        self._seconds: dict[str, float] = {}

    @cached_property
    def _dataroot(self) -> Path:
        from nuscenes_tables import write_nuscenes

        scenes = {f"scene-{number:04d}": 2 + number % 3 for number in range(1, 5)}
        root = self._folder / "scenes"
        root.mkdir()
        return write_nuscenes(root, scenes=scenes, image_hw=(64, 96), splits={"tiny": list(scenes)})

    @cached_property
    def _peace(self) -> dict[str, bytes | str]:
        """The store of a dump that nobody disturbed."""
        store = self._folder / "peace.zarr"
        assert self._dataroot.is_dir(), "made before a process is forked that would make it again"
        self._in_peace(DUMP, lambda: self._dump(store))
        return contents(store)

    @cached_property
    def _workshop(self) -> Workshop:
        from train_cases import make_workshop

        folder = self._folder / "workshop"
        folder.mkdir()
        made = make_workshop(folder)
        # In a process of its own: one that has computed with threads cannot be forked.
        self._in_peace("store", lambda: made.store("exact") and 0)
        return made

    @cached_property
    def _config(self) -> Path:
        changes = {"checkpoint_interval": CHECKPOINT_EVERY, "train_cfg.max_epochs": EPOCHS}
        return self._workshop.student_config("chaos", **changes)

    @cached_property
    def _trained(self) -> Path:
        """The work folder of a training that nobody disturbed."""
        work = self._folder / "peace"
        assert self._config.is_file(), "made before a process is forked that would make it again"
        self._in_peace(TRAINING, lambda: self._train(work))
        return work

    def kind(self, number: int, rng: random.Random) -> str:
        """See Family."""
        return KINDS[number % len(KINDS)]

    def trial(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """See Family."""
        store, work = self._folder / "killed.zarr", self._folder / "killed"
        try:
            return self._of_dump(kind, store, rng) if "dump" in kind else self._of_training(kind, work, rng)
        finally:
            for folder in (store, work):
                shutil.rmtree(folder, ignore_errors=True)

    def _of_dump(self, kind: str, store: Path, rng: random.Random) -> tuple[str, str]:
        peace = self._peace
        after_s = rng.uniform(0, self._seconds[DUMP])
        other = None
        if kind == TWO_DUMPS:
            other = self._begin(lambda: self._dump(store, "--shard", "2/2"), "other")
        part = () if other is None else ("--shard", "1/2")
        pid = self._begin(lambda: self._dump(store, "--workers", "1", *part))
        how = _kill_worker(pid, after_s) if kind == DUMP_WORKER else _kill(pid, after_s)
        if how not in ("", "killed", f"exit status {STOPPED}"):
            return CRASHED, f"{how}\n{self._said()}"
        if wrong := _published_wrong(store, peace):
            return LOST, f"published and not as in peace: {wrong[:3]}"
        if other is not None and (how := ended(other)):
            return CRASHED, f"the dump beside it: {how}\n{self._said('other')}"
        if how := ended(self._begin(lambda: self._dump(store))):
            return CRASHED, f"the dump that goes on: {how}\n{self._said()}"
        return (HEALED, "") if contents(store) == peace else (LOST, "the resumed dump is another one")

    def _of_training(self, kind: str, work: Path, rng: random.Random) -> tuple[str, str]:
        from train_cases import FRAMES

        peace = self._trained
        after_s, step = rng.uniform(0, self._seconds[TRAINING]), rng.randrange(1, EPOCHS * FRAMES + 1)
        store = self._workshop.store("exact")
        how = ""
        if kind == TRAINING:
            how = _kill(self._begin(lambda: self._train(work)), after_s)
        elif kind == TRAINING_WORKER:
            how = _kill_worker(self._begin(lambda: self._train(work, "--workers", "1")), after_s)
        elif kind == NAN:
            how = ended(self._begin(lambda: self._with_nan(work, step)))
        elif kind == FULL:
            how = ended(self._begin(lambda: self._with_full_disk(work)))
        else:
            path = rng.choice([p for p in sorted(store.rglob("c.*")) if "teacher_head" not in p.parts])
            with flipped_byte(path, rng):
                how = ended(self._begin(lambda: self._train(work)))
        stopped = f"exit status {STOPPED}"
        if how not in ("", "killed", stopped):
            return CRASHED, f"{how}\n{self._said()}"
        if kind in (NAN, FULL) and how != stopped:
            return SILENT, f"the training went on, {how or 'to its end'}"
        # One that came to its end has nothing to go on with, and exports again.
        if how := ended(self._begin(lambda: self._train(work, "--resume"))):
            return CRASHED, f"the training that goes on: {how}\n{self._said()}"
        return (
            (HEALED, "") if _same_weights(work, peace) else (LOST, "the resumed training has other weights")
        )

    def _dump(self, store: Path, *more: str) -> int:
        from extract.dump_teacher import main

        where = ("--dataroot", self._dataroot, "--version", "v1.0-mini", "--split", "tiny", "--out", store)
        how = ("--untrained", "--threads", "1", "--workers", "0")
        return main([str(word) for word in (TINY, *where, *how, *more)])

    def _train(self, work: Path, *more: str) -> int:
        from train.distill_from_cache import main

        store = str(self._workshop.store("exact"))
        return main(self._workshop.arguments(self._config, work, "--cache", store, *more))

    def _with_nan(self, work: Path, step: int) -> int:
        from train_faults import not_finite

        with not_finite([step]):
            return self._train(work)

    def _with_full_disk(self, work: Path) -> int:
        checkpoint = max(len(p.read_bytes()) for p in self._trained.glob("iter_*.pth"))
        with files_of_at_most(checkpoint // 2):
            return self._train(work)

    def _begin(self, work: Callable[[], int], name: str = "log") -> int:
        def quietly() -> None:
            log = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = work()
            sys.stdout.flush()
            if code:
                os._exit(code)

        return begin(quietly)

    def _said(self, name: str = "log") -> str:
        return (self._folder / name).read_text(errors="replace")[-2000:]

    def _in_peace(self, what: str, work: Callable[[], int]) -> None:
        began = time.monotonic()
        if how := ended(self._begin(work)):
            raise RuntimeError(f"{what} in peace: {how}\n{self._said()}")
        self._seconds[what] = time.monotonic() - began


def _published_wrong(store: Path, peace: dict[str, bytes | str]) -> list[str]:
    """Files of published parts that are not as they were written in peace."""
    found = contents(store) if store.exists() else {}
    parts = [name.removesuffix("manifest.json") for name in found if name.endswith("/manifest.json")]
    wanted = {name for name in (*found, *peace) if name.startswith(tuple(parts))} if parts else set()
    return sorted(name for name in wanted if found.get(name) != peace.get(name))


def _same_weights(work: Path, peace: Path) -> bool:
    from train_cases import weights_of

    ours, wanted = weights_of(work / "last.pth"), weights_of(peace / "last.pth")
    return set(ours) == set(wanted) and all(ours[name].equal(wanted[name]) for name in wanted)


def _kill(pid: int, after_s: float) -> str:
    time.sleep(after_s)
    os.kill(pid, signal.SIGKILL)
    return ended(pid)


def _kill_worker(pid: int, after_s: float) -> str:
    """Kill a child of that process, once there is one, some time after; then wait for the process."""
    until = time.monotonic() + after_s
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children and time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(children[0]), signal.SIGKILL)
            return ended(pid)
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return ended(pid)  # it came to its end before
        time.sleep(0.005)
