"""Runs a stage in processes of its own: a crash costs a measurement, a hang the rest of the stage."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gpu_stages.records import FAILED, OK, OUT_OF_TIME, Result
from gpu_stages.stage import BROKEN, Context, Row, Stage

GRACE_S = 5.0
LOG_LINES = 3


class Process(Protocol):
    """A child with a process group of its own."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""


Start = Callable[[Stage, Context, Path, Collection[str]], Process]


def started(stage: Stage, context: Context, journal: Path, done: Collection[str]) -> Process:
    """A new interpreter: what a GPU needs, where no process may inherit another one's CUDA."""
    script = Path(__file__).parents[1] / "gpu_suite.py"
    command = [sys.executable, str(script), "--stage", stage.name]
    task = {"context": context.to_json(), "journal": str(journal), "done": list(done)}
    with _log(stage, context).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"FOCALCACHE_GPU_STAGE": json.dumps(task)},
            start_new_session=True,
        )


@dataclass
class Forked:
    """A copy of this process, which has its imports already: for many small stages without a GPU."""

    pid: int
    _code: int | None = None

    def poll(self) -> int | None:
        """See Process."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code


def forked(stage: Stage, context: Context, journal: Path, done: Collection[str]) -> Process:
    """See Forked."""
    from gpu_stages import child

    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        os.setsid()
        log = _log(stage, context).open("a", buffering=1)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = log  # what they were may write elsewhere
        code = child.run(stage, context, child.Journal(journal), done)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


@dataclass
class Progress:
    """What a journal has told so far."""

    environment: str = ""
    fault: str = ""
    begun: str | None = None
    rows: list[Row] = field(default_factory=list)
    _read: int = 0

    def read(self, path: Path, say: Callable[[str], None]) -> None:
        """What is new; a line that is still being written is left for the next time."""
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                self._take(json.loads(line), say)

    def _take(self, facts: dict, say: Callable[[str], None]) -> None:
        self.environment = facts.get("environment", self.environment)
        self.fault = facts.get("fault", self.fault)
        self.begun = facts.get("begun", self.begun)
        if "ended" in facts:
            self.begun = None
            self.rows += facts["rows"]
            errors = [row["error"] for row in facts["rows"] if "error" in row]
            say(f"{facts['ended']}: {errors[0] if errors else 'done'}, {facts['seconds']:.1f} s")


def run_stage(
    stage: Stage,
    context: Context,
    *,
    limit_s: float,
    earlier: Sequence[Row] = (),
    start: Start = started,
    say: Callable[[str], None] = lambda text: None,
) -> Result:
    """Run a stage, for at most so long.

    Args:
        earlier: rows that need not be measured again.
        say: told about every measurement.
    """
    begin = time.monotonic()
    progress = Progress(rows=list(earlier))
    status, number = None, 0
    while status is None:
        journal = context.work / f"{stage.name}-{os.getpid()}-{number}.journal"
        number += 1
        journal.unlink(missing_ok=True)
        progress._read = 0
        done = {str(row["measured"]) for row in progress.rows}
        code = _wait(start(stage, context, journal, done), progress, journal, begin + limit_s, say)
        progress.read(journal, say)
        journal.unlink(missing_ok=True)
        status = _status(code, progress, limit_s, _log(stage, context))
    return Result(
        stage=stage.name,
        status=status,
        seconds=round(time.monotonic() - begin, 1),
        tiny=context.tiny,
        environment=progress.environment,
        fault=progress.fault,
        rows=progress.rows,
    )


def _status(code: int | None, progress: Progress, limit_s: float, log: Path) -> str | None:
    """How the stage ended; None: a new process goes on behind the measurement that ended this one."""
    begun, progress.begun = progress.begun, None
    if code is None:
        progress.fault = f"ended after {limit_s:.0f} s" + (f", during {begun}" if begun else "")
        return OUT_OF_TIME
    if code == 0:
        return OK
    if code == BROKEN:
        return None
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    if begun is not None:
        progress.rows.append({"measured": begun, "error": f"its process ended with {how}, see {log.name}"})
        return None
    progress.fault = progress.fault or f"{how}: {_tail(log)}"
    return FAILED


def _wait(
    process: Process, progress: Progress, journal: Path, until: float, say: Callable[[str], None]
) -> int | None:
    """Its exit code; None when it had to be ended. Its own children end with it, whatever happens."""
    try:
        while (code := process.poll()) is None:
            if time.monotonic() > until:
                return None
            progress.read(journal, say)
            time.sleep(0.1)
        return code
    finally:
        _end(process)


def _end(process: Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        until = time.monotonic() + GRACE_S
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)


def _log(stage: Stage, context: Context) -> Path:
    return context.out / f"{stage.name}.log"


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return " / ".join(lines[-LOG_LINES:])[-400:]
