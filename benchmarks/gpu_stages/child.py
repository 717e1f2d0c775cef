"""The process of a stage: its measurements one after the other, each written down when it is there."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from common import environment

from gpu_stages.stage import BROKEN, Context, Row, Stage, flat

# After one of these nothing runs in this process any more.
FATAL = ("CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS_INTERNAL", "cuDNN error", "device-side assert")


class Journal:
    """Lines of a file that whoever waits for the process reads."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, **facts: object) -> None:
        """A line, on the disk before this returns."""
        with self._path.open("a") as file:
            file.write(json.dumps(facts, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())


def run(stage: Stage, context: Context, journal: Journal, done: Collection[str]) -> int:
    """All measurements but those that are done; returns the exit code."""
    os.environ["XDG_CACHE_HOME"] = str(context.work / "cache")  # of dataset indices
    if context.tiny:
        torch.set_num_threads(1)
    journal.add(environment=environment())
    try:
        for name, measure in _left(stage.measurements(context), done):
            journal.add(begun=name)
            start = time.perf_counter()
            rows, broken = _measured(measure)
            seconds = round(time.perf_counter() - start, 2)
            journal.add(ended=name, seconds=seconds, rows=[{"measured": name} | row for row in rows])
            if broken:
                return BROKEN
    except Exception as error:
        # Whatever a stage needs for all of its measurements could not be made.
        traceback.print_exc()
        journal.add(fault=_told(error))
        return 1
    return 0


def _left(
    measurements: Iterator[tuple[str, Callable]], done: Collection[str]
) -> Iterator[tuple[str, Callable]]:
    return ((name, measure) for name, measure in measurements if name not in done)


def _measured(measure: Callable[[], Row | list[Row]]) -> tuple[list[Row], bool]:
    """Its rows, or one with the error; and whether the process is of no more use."""
    try:
        rows = flat(measure())
        # An operation that failed on the device says so at the next chance.
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception as error:
        traceback.print_exc()
        text = _told(error)
        return [{"error": text}], any(sign in text for sign in FATAL)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
    return rows, False


def _told(error: Exception) -> str:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {' '.join(lines[:3])}"[:300]
