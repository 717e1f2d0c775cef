"""Trials that may crash or hang: each runs in a child process with a limit, and has an outcome.

A trial is drawn from the seed and its number alone, so that any of them can be repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NOTICED, HARMLESS, HEALED, SILENT, LOST, CRASHED, HUNG, OUTSIDE = OUTCOMES = (
    "noticed",
    "no effect",
    "healed",
    "silent",
    "lost",
    "crashed",
    "hung",
    "outside touched",
)
BAD = (SILENT, LOST, CRASHED, HUNG, OUTSIDE)
MEMORY_MB = 200
PREPARATION_S = 600.0  # for what all trials of a child need


@dataclass(frozen=True)
class Outcome:
    """What came of one trial; `detail` says more of a bad one."""

    number: int
    kind: str
    outcome: str
    detail: str = ""


class Family(Protocol):
    """A kind of trials, and what they need.

    Attributes:
        limit_s: after so many seconds without an end a trial hangs.
    """

    limit_s: float

    def kind(self, number: int, rng: random.Random) -> str:
        """What a trial is about to do."""
        ...

    def trial(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """Do it; returns outcome and detail. Whatever it raises is a crash."""
        ...


def outcomes(
    make: Callable[[Path], Family], folder: Path, seed: str, numbers: Sequence[int]
) -> Iterator[Outcome]:
    """Run trials one after the other. After one that crashed or hung a new child goes on.

    Args:
        make: the family, given an empty folder; called in each child.
    """
    left = list(numbers)
    while left:
        for outcome in _of_one_child(make, folder / f"from {left[0]}", seed, tuple(left)):
            left.remove(outcome.number)
            yield outcome


def _of_one_child(
    make: Callable[[Path], Family], folder: Path, seed: str, numbers: Sequence[int]
) -> Iterator[Outcome]:
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        os.setpgid(0, 0)  # its own children die with it
        try:
            with os.fdopen(writing, "w") as out:
                _child(make, folder, seed, numbers, out)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    try:
        yield from _told(reading, numbers)
    finally:
        os.close(reading)
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _told(reading: int, numbers: Sequence[int]) -> Iterator[Outcome]:
    """What a child says, until its last trial or one that it did not survive."""
    begun: dict | None = None
    limit_s, buffer = PREPARATION_S, b""
    while True:
        while b"\n" not in buffer:
            if not select.select([reading], [], [], limit_s)[0]:
                if begun is None:
                    raise RuntimeError("the trials did not begin")
                yield Outcome(begun["number"], begun["kind"], HUNG, f"{limit_s} s")
                return
            block = os.read(reading, 1 << 16)
            if not block:
                if begun is None:
                    raise RuntimeError("the child ended without a trial: see its traceback")
                yield Outcome(begun["number"], begun["kind"], CRASHED, "the process died")
                return
            buffer += block
        line, _, buffer = buffer.partition(b"\n")
        said = json.loads(line)
        if "outcome" not in said:
            limit_s = said.pop("limit_s")
            begun = said
            continue
        begun = None
        yield Outcome(**said)
        if said["number"] == numbers[-1] or said["outcome"] == CRASHED:
            return


def _child(
    make: Callable[[Path], Family], folder: Path, seed: str, numbers: Sequence[int], out: object
) -> None:
    folder.mkdir(parents=True)
    family = make(folder)

    def say(**words: object) -> None:
        out.write(json.dumps(words) + "\n")
        out.flush()

    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        kind = family.kind(number, rng)
        say(number=number, kind=kind, limit_s=family.limit_s)
        before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            outcome, detail = family.trial(kind, rng)
        except Exception:
            outcome, detail = CRASHED, traceback.format_exc()[-3000:]
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1e3
        if grown_mb > MEMORY_MB and outcome not in BAD:
            outcome, detail = CRASHED, f"took {grown_mb:.0f} MB"
        say(number=number, kind=kind, outcome=outcome, detail=detail if outcome in BAD else "")
        if outcome == CRASHED:
            return  # the trials' own stores may be anything now
