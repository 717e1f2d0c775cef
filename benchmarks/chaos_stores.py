"""The stores that chaos is let loose on, what is known of them, and what must stay untouched beside them."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from common import ROOT

sys.path[:0] = [str(ROOT / "tests" / "test_cache_schema")]

from chaos_trials import HARMLESS, NOTICED, OUTSIDE, SILENT  # noqa: E402
from corruption_cases import HEAD, everything, fill_profile_store, profile_spec  # noqa: E402

from cache_schema.errors import AlreadyPublished, CacheError, FingerprintMismatch  # noqa: E402
from cache_schema.fingerprint import difference  # noqa: E402
from cache_schema.inspection.verify import verify  # noqa: E402
from cache_schema.profiles import PROFILES  # noqa: E402
from cache_schema.reader import TargetReader  # noqa: E402
from cache_schema.storage import StorePath  # noqa: E402
from cache_schema.writer import StoreWriter  # noqa: E402

SCENES = {"scene-0001": 2, "scene-0002": 1}
LARGEST = 1 << 20  # no file of these stores has as much


def dump(path: StorePath, profile: str, seed: int = 0, *, threads: int = 1) -> None:
    """What a dump does to a store, whatever is there already. Other `threads` are another fingerprint."""
    spec = profile_spec(profile)
    spec = replace(spec, numerics=replace(spec.numerics, threads=threads))
    try:
        writer = StoreWriter.create(path, spec, planned=SCENES)
    except AlreadyPublished:
        writer = StoreWriter.open(path)
        if problems := difference(spec, writer.spec):  # as the command asks
            raise FingerprintMismatch(f"{path} was begun by another dump", problems) from None
    writer.remove_abandoned()
    writer.write_teacher_head({name: values + seed for name, values in HEAD.items()})
    for name in writer.missing_scenes():
        with contextlib.suppress(AlreadyPublished):  # another dump was quicker
            fill_profile_store(writer, profile, {name: SCENES[name]}, seed)
    if not writer.missing_scenes():
        writer.seal()


def contents(folder: Path) -> dict[str, bytes | str]:
    """Files of a folder with their bytes, links with where they lead, pipes and folders as such."""
    return {name: _content(os.path.join(folder, name)) for name in marks(folder)}


def marks(folder: Path) -> dict[str, tuple[int, ...]]:
    """What tells in an instant whether something below a folder was changed, by relative path."""
    found, waiting = {}, [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(os.path.join(folder, below)) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                name = f"{below}{entry.name}"
                is_folder = entry.is_dir(follow_symlinks=False)
                written = 0 if is_folder else status.st_mtime_ns
                found[name] = (status.st_ino, status.st_mode, status.st_size, written)
                if is_folder:
                    waiting.append(f"{name}/")
    return found


def _content(path: str) -> bytes | str:
    if os.path.islink(path):
        return f"link to {os.readlink(path)}"
    if not os.path.isfile(path):
        return "folder" if os.path.isdir(path) else "special"
    size = os.path.getsize(path)
    return Path(path).read_bytes() if size < LARGEST else f"{size} bytes"


class World:
    """A store of one profile, its older and its foreign twin, and somebody's own folder beside them."""

    def __init__(self, folder: Path, profile: str) -> None:
        self.profile = profile
        self.store, self.outside = folder / "teacher.zarr", folder / "outside"
        self.older, self.foreign = folder / "older.zarr", folder / "foreign.zarr"
        dump(self.store, profile)
        dump(self.older, profile, seed=1)
        dump(self.foreign, profile, threads=2)
        self.pristine = contents(self.store)
        self.intact = everything(self.store)
        self.digest = TargetReader(self.store).digest
        self.files = sorted(name for name, what in self.pristine.items() if isinstance(what, bytes))
        (self.outside / "mine").mkdir(parents=True)
        (self.outside / "mine" / "cat.png").write_bytes(b"my cat")
        shutil.copytree(self.store, self.outside / "a store of mine")
        self._outside, self._outside_marks = contents(self.outside), marks(self.outside)
        self._marks = marks(self.store)

    def restore(self) -> None:
        """Make the store what it was."""
        now = marks(self.store)
        for name in sorted(set(now) - set(self.pristine), key=len, reverse=True):
            _remove(self.store / name)
        for name, what in sorted(self.pristine.items()):
            path = self.store / name
            if now.get(name) == self._marks[name]:
                continue
            if os.path.lexists(path) and not (what == "folder" and path.is_dir() and not path.is_symlink()):
                _remove(path)
            path.mkdir(exist_ok=True) if what == "folder" else path.write_bytes(what)
        self._marks = marks(self.store)

    def outside_touched(self) -> str:
        """What differs beside the store; empty when nothing does."""
        now = marks(self.outside)
        if now == self._outside_marks:
            return ""
        changed = {n for n in {*now, *self._outside} if now.get(n) != self._outside_marks.get(n)}
        shutil.rmtree(self.outside)
        self.outside.mkdir()
        for name, what in sorted(self._outside.items()):
            path = self.outside / name
            path.mkdir() if what == "folder" else path.write_bytes(what)
        self._outside_marks = marks(self.outside)
        return f"changed beside the store: {sorted(changed)[:5]}"

    def verdict(self) -> tuple[str, str]:
        """Who notices what was done to the store: verify, the reader, or nobody."""
        try:
            findings = verify(self.store)
            by_verify = not (findings.complete and findings.sealed and findings.has_head)
        except CacheError:
            by_verify = True
        try:
            changed = everything(self.store) != self.intact
            by_reader = False
        except CacheError:
            changed, by_reader = False, True
        if touched := self.outside_touched():
            return OUTSIDE, touched
        if changed:
            return SILENT, "the reader gave out what was never written"
        if by_reader and not by_verify:
            return SILENT, "verify finds nothing in a store that cannot be read"
        return (NOTICED if by_verify else HARMLESS), ""


def worlds(folder: Path) -> list[World]:
    """One of each profile."""
    made = []
    for profile in PROFILES:
        (folder / profile).mkdir(parents=True)
        made.append(World(folder / profile, profile))
    return made


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
