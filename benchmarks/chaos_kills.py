"""kill -9 of processes that write, repair and upload stores; a real SIGKILL at a random moment.

Asked after each: is every published scene whole, and still there? And does the same command, run again, end
with the bytes that were never disturbed?
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from chaos_bucket import BUCKET, FAULTS, PASSING, FolderBucket, schedule
from chaos_faults import flipped, torn, zeroed
from chaos_stores import World, contents, dump, everything, worlds
from chaos_trials import CRASHED, HARMLESS, HEALED, LOST, NOTICED, OUTSIDE, SILENT

from cache_schema import s3_client
from cache_schema.errors import CacheError
from cache_schema.inspection.repair import repair
from cache_schema.inspection.verify import verify
from cache_schema.storage import S3Path

# By the number of the kill, modulo their count.
TWO = "two dumps, one killed"
KINDS = ("dump", TWO, "repair", "dump", "dump to a bucket", TWO, "repair")


def begin(work: Callable[[], object]) -> int:
    """Do it in a process of its own, which exits with 1 when it fails."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> str:
    """Wait for it: "" when it ended well, "killed", or what else."""
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "killed" if os.WTERMSIG(status) == signal.SIGKILL else f"signal {os.WTERMSIG(status)}"
    return "" if status == 0 else f"exit status {os.WEXITSTATUS(status)}"


class Kills:
    """Each trial kills one process once, at a random moment of the time that it takes in peace."""

    limit_s = 120.0

    def __init__(self, folder: Path) -> None:
        self._folder, self._worlds = folder, worlds(folder)
        self._bucket: FolderBucket | None = None
        self._seconds: dict[str, float] = {}

    def kind(self, number: int, rng: random.Random) -> str:
        """See Family."""
        return KINDS[number % len(KINDS)]

    def trial(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """See Family."""
        world = rng.choice(self._worlds)
        if kind == "repair":
            return self._repair(world, rng)
        if kind == "dump to a bucket":
            return self._upload(world, rng)
        path = self._folder / "killed.zarr"
        try:
            return self._dump(world, path, rng, others=kind == TWO)
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _killed(self, what: str, work: Callable[[], object], rng: random.Random) -> str:
        """Begin it and kill it; where it is not known how long it takes, it is let finish."""
        began = time.monotonic()
        pid = begin(work)
        if what in self._seconds:
            time.sleep(rng.uniform(0, self._seconds[what]))
            os.kill(pid, signal.SIGKILL)
        how = ended(pid)
        if not how:
            self._seconds[what] = 1.05 * (time.monotonic() - began)
        return how

    def _dump(self, world: World, path: Path, rng: random.Random, *, others: bool) -> tuple[str, str]:
        work = lambda: dump(path, world.profile)  # noqa: E731
        other = begin(work) if others else None
        how = self._killed(f"dump {world.profile} {others}", work, rng)
        if (fault := _half_there(world, path)) or how not in ("", "killed"):
            return (LOST, fault) if fault else (CRASHED, how)
        if other is not None and (how := ended(other)):
            return CRASHED, f"the other dump: {how}"
        if how := ended(begin(work)):
            return CRASHED, f"the dump that goes on: {how}"
        return (HEALED, "") if contents(path) == world.pristine else (LOST, "the resumed dump is another one")

    def _repair(self, world: World, rng: random.Random) -> tuple[str, str]:
        try:
            for _ in range(rng.choice((1, 2))):
                rng.choice((flipped, torn, zeroed))(world, rng)
            damaged = verify(world.store).damaged_parts

            def work() -> None:
                with contextlib.suppress(CacheError):  # which says that nothing can be done
                    repair(world.store, verify(world.store))

            how = self._killed("repair", work, rng)
            if how not in ("", "killed"):
                return CRASHED, how
            if touched := world.outside_touched():
                return OUTSIDE, touched
            whole = [f for f in world.files if f.startswith(("scenes/scene", "teacher_head"))]
            gone = [f for f in whole if not (world.store / f).exists() and not f.startswith(tuple(damaged))]
            if gone:
                return LOST, f"the repair took {gone[:3]}, damaged were {damaged}"
            try:
                repair(world.store, verify(world.store))
                dump(world.store, world.profile)
                same = everything(world.store) == world.intact
            except CacheError:
                return NOTICED, ""
            return (HEALED, "") if same else (SILENT, "after the repair the store holds other values")
        finally:
            world.restore()

    def _upload(self, world: World, rng: random.Random) -> tuple[str, str]:
        bucket = self._server()
        place = S3Path(BUCKET, "teacher.zarr")
        folder = bucket.folder / BUCKET / "teacher.zarr"
        try:
            how = self._killed("upload", lambda: dump(place, world.profile), rng)
            if (fault := _half_there(world, place)) or how not in ("", "killed"):
                return (LOST, fault) if fault else (CRASHED, how)
            if how := ended(begin(lambda: dump(place, world.profile))):
                return CRASHED, f"the dump that goes on: {how}"
            found = {name: what for name, what in contents(folder).items() if what != "folder"}
            wanted = {name: what for name, what in world.pristine.items() if what != "folder"}
            return (HEALED, "") if found == wanted else (LOST, "the resumed dump is another one")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _server(self) -> FolderBucket:
        if self._bucket is None:
            self._bucket = FolderBucket(self._folder / "buckets")
        return self._bucket


def _half_there(world: World, place: Path | S3Path) -> str:
    """What a reader of the unfinished store would get that was never written; empty when nothing."""
    try:
        got = everything(place)
    except CacheError:
        got = None
    try:
        findings = verify(place)
    except CacheError:
        return ""  # not begun
    if findings.faults:
        return f"a scene is published and has faults: {findings.faults[:3]}"
    given = {} if got is None else {n: v for n, v in got.items() if n not in ("spec", "scenes")}
    wrong = [name for name, value in given.items() if world.intact.get(name) != value]
    return f"a reader is given {wrong[:3]}" if wrong else ""


class BucketFaults:
    """Each trial reads a whole store, or dumps one, from a server that fails or lies."""

    limit_s = 120.0

    def __init__(self, folder: Path) -> None:
        self._worlds = worlds(folder)
        self._bucket = FolderBucket(folder / "buckets")
        s3_client._FIRST_WAIT_S = 0.001  # the waits between attempts are not what is tried
        for world in self._worlds:
            shutil.copytree(world.store, self._bucket.folder / BUCKET / world.profile)

    def kind(self, number: int, rng: random.Random) -> str:
        """See Family."""
        work = "dumping" if number // len(FAULTS) % 4 == 3 else "reading"
        return f"{FAULTS[number % len(FAULTS)]}, while {work}"

    def trial(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """See Family."""
        world = rng.choice(self._worlds)
        fault, _, work = kind.partition(", while ")
        share = rng.choice((0.05, 0.2)) if fault in PASSING else rng.choice((0.02, 0.2, 1.0))
        times = None if fault in PASSING else rng.choice((1, 3, None))
        self._bucket.fault = schedule(fault, share, rng.randrange(1 << 32), times=times)
        try:
            return self._read(world) if work == "reading" else self._dump(world)
        finally:
            self._bucket.fault = lambda method, key: ""
            shutil.rmtree(self._bucket.folder / BUCKET / "new.zarr", ignore_errors=True)

    def _read(self, world: World) -> tuple[str, str]:
        place = S3Path(BUCKET, world.profile)
        noticed = False
        try:
            if everything(place) != world.intact:
                return SILENT, "the reader gave out what was never written"
        except CacheError:
            noticed = True
        try:
            noticed = noticed or not verify(place).complete
        except CacheError:
            noticed = True
        return (NOTICED if noticed else HARMLESS), ""

    def _dump(self, world: World) -> tuple[str, str]:
        place = S3Path(BUCKET, "new.zarr")
        folder = self._bucket.folder / BUCKET / "new.zarr"
        try:
            dump(place, world.profile)
            outcome = HARMLESS
        except (CacheError, FileNotFoundError):
            outcome = NOTICED
        self._bucket.fault = lambda method, key: ""
        try:
            dump(place, world.profile)
        except CacheError:
            return NOTICED, ""
        found = {name: what for name, what in contents(folder).items() if what != "folder"}
        wanted = {name: what for name, what in world.pristine.items() if what != "folder"}
        if found != wanted and not verify(place).complete:
            return NOTICED, ""  # a server that says of an upload that it was done cannot be caught at once
        if found != wanted:
            different = [n for n in {*found, *wanted} if found.get(n) != wanted.get(n)]
            return LOST, f"the resumed dump is another one: {sorted(different)[:3]}"
        return (HEALED if outcome == NOTICED else HARMLESS), ""
