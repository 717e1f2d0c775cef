"""Does a dump survive kill -9, at whatever moment?

Two processes dump small scenes of generated frames. One of them, drawn at random, is killed after a random
time and started again, 50 times over; a store that gets finished meanwhile is compared and begun anew. Then
one run in peace. Asked after every kill: does everything that a reader accepts carry the right bytes, and is
every scene still there that was? Asked of every finished store: does it verify, and is it, to the last byte,
the one that a single process writes in peace?

The processes are forked from one that has imported everything: a real process, a real SIGKILL, without the
seconds that imports take.

Example:
    python benchmarks/kill_dump.py --kills 50 > benchmarks/results/kill_dump.md
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import filecmp
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from nuscenes_tables import write_nuscenes  # noqa: E402

from cache_schema.files import STAGING_PREFIX  # noqa: E402
from cache_schema.inspection.verify import verify  # noqa: E402
from cache_schema.store_root import published_scenes, read_plan  # noqa: E402
from extract import run  # noqa: E402, F401  the seconds that every process would need
from extract.dump_teacher import main as dump_main  # noqa: E402

CONFIG = ROOT / "tests" / "test_extract" / "tiny_teacher.py"
LONGEST_LIFE_S = 1.5
LIMIT_S = 120.0


class Dump:
    """A dump into one store by several processes, each of which can be killed and started again."""

    def __init__(self, dataroot: Path, store: Path, processes: int) -> None:
        self.store = store
        self.processes = processes
        self._log = store.with_suffix(".log")
        self._argv = [str(CONFIG), "--dataroot", str(dataroot), "--version", "v1.0-mini", "--split", "tiny"]
        self._argv += ["--untrained", "--out", str(store), "--workers", "1", "--threads", "1"]
        self.pids: dict[int, int] = {}  # by rank

    def start(self, rank: int) -> None:
        """Fork the process of a rank."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._become(rank)
        self.pids[rank] = pid

    def _become(self, rank: int) -> None:
        code = 70
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(self.processes)}
            code = dump_main(self._argv)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def reap(self) -> None:
        """Forget the processes that have finished. Exits with the log when one of them failed."""
        for rank, pid in list(self.pids.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.pids[rank]
                if status:
                    sys.exit(f"process of rank {rank} ended with status {status}:\n{self._log.read_text()}")

    def kill(self, rank: int) -> bool:
        """SIGKILL; returns whether it came in time."""
        pid = self.pids.pop(rank)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)

    def wait(self) -> None:
        """Until all processes have finished."""
        limit = time.monotonic() + LIMIT_S
        while self.pids:
            self.reap()
            time.sleep(0.01)
            if time.monotonic() > limit:
                sys.exit(f"still running after {LIMIT_S} s:\n{self._log.read_text()}")

    def run_in_peace(self) -> None:
        for rank in range(self.processes):
            self.start(rank)
        self.wait()


def what_it_was_at(store: Path) -> str:
    """What a process that has just died was writing, told from the temporary folder that nobody locks."""
    for name in os.listdir(store) if store.exists() else ():
        if name.startswith(STAGING_PREFIX):
            with contextlib.suppress(OSError):
                descriptor = os.open(store / name, os.O_RDONLY)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                finally:
                    os.close(descriptor)
                part = name.removeprefix(STAGING_PREFIX).rsplit("-", 2)[0]
                part = "a scene" if part.startswith("scene-") else {"zarr": "the root"}.get(part, part)
                return f"writing {part}"
    return "starting, reading, between two scenes"


def differing(ours: Path, peace: Path) -> list[str]:
    """Files that are in one folder only, or not the same in both."""
    files = {f.relative_to(folder) for folder in (ours, peace) for f in folder.rglob("*") if f.is_file()}
    return sorted(
        str(file)
        for file in files
        if not (ours / file).is_file()
        or not (peace / file).is_file()
        or not filecmp.cmp(ours / file, peace / file, shallow=False)
    )


def check_readable(store: Path, peace: Path) -> set[str]:
    """What a reader accepts is right; returns the published scenes. Exits when it is not."""
    names = set(published_scenes(store, read_plan(store))) if (store / "zarr.json").exists() else set()
    for name in names:
        if different := differing(store / "scenes" / name, peace / "scenes" / name):
            sys.exit(f"{name} is published and not as it should be: {different}")
    return names


def check_finished(store: Path, peace: Path) -> None:
    """It is complete, verifies and is identical. Exits when it is not."""
    findings = verify(store)
    faults = [f"{fault.path}: {fault.what}" for fault in findings.faults]
    faults += findings.missing_scenes + findings.left_behind
    faults += [] if findings.sealed and findings.has_head else ["not sealed, or without head"]
    if faults:
        sys.exit(f"finished, and does not verify: {faults}")
    if different := differing(store, peace):
        sys.exit(f"finished, but not as it is in peace: {different}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scenes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        report(args, *kill_often(args, Path(folder)))
    return 0


def kill_often(args: argparse.Namespace, folder: Path) -> tuple[Counter[str], int, float, int]:
    """Kills by what they hit, stores that were finished, seconds of the dump in peace, samples of it."""
    rng = random.Random(args.seed)
    names = [f"scene-{number:04d}" for number in range(1, args.scenes + 1)]
    lengths = {name: 2 + number % 3 for number, name in enumerate(names)}
    dataroot = write_nuscenes(folder / "nuscenes", scenes=lengths, image_hw=(64, 96), splits={"tiny": names})
    start = time.monotonic()
    peace = Dump(dataroot, folder / "peace.zarr", processes=1)
    peace.run_in_peace()
    seconds = time.monotonic() - start
    check_finished(peace.store, peace.store)

    dump = Dump(dataroot, folder / "killed.zarr", args.processes)
    hits: Counter[str] = Counter()
    finished = 0
    published: set[str] = set()
    with tqdm(total=args.kills, unit="kill") as bar:
        while bar.n < args.kills:
            for rank in range(args.processes):
                dump.start(rank)
            while dump.pids and bar.n < args.kills:
                time.sleep(rng.uniform(0.0, LONGEST_LIFE_S))
                dump.reap()
                rank = rng.randrange(args.processes)
                if rank in dump.pids and dump.kill(rank):
                    hits[what_it_was_at(dump.store)] += 1
                    bar.update()
                    before, published = published, check_readable(dump.store, peace.store)
                    if before - published:
                        sys.exit(f"scenes were there and are gone: {before - published}")
                    dump.start(rank)
            if not dump.pids:
                finished += 1
                check_finished(dump.store, peace.store)
                shutil.rmtree(dump.store)
                published = set()
    dump.wait()
    dump.run_in_peace()
    check_finished(dump.store, peace.store)
    return hits, finished + 1, seconds, sum(lengths.values())


def report(args: argparse.Namespace, hits: Counter[str], finished: int, seconds: float, samples: int) -> None:
    """Print the table."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    print("# Dumps under kill -9\n")
    print(f"`python benchmarks/kill_dump.py --kills {args.kills} --seed {args.seed}`  ")
    print(f"{datetime.date.today()}, {os.cpu_count()} cores of {cpu_name()}, commit {commit}\n")
    print(
        f"{args.processes} processes, {args.scenes} scenes, {samples} samples;"
        f" one process in peace takes {seconds:.1f} s. Each kill came at random within"
        f" {LONGEST_LIFE_S} s of the one before.\n"
    )
    print("| the killed process was | kills |\n|---|---:|")
    for what, count in sorted(hits.items()):
        print(f"| {what} | {count} |")
    print(f"| **all** | **{sum(hits.values())}** |\n")
    print("| asked | result |\n|---|---|")
    print("| published scenes that were not byte-identical to those written in peace | 0 |")
    print("| published scenes lost | 0 |")
    print(f"| finished stores, each verified and byte-identical to the one in peace | {finished} |")


def cpu_name() -> str:
    """As Linux calls it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
