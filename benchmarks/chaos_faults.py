"""Faults of a store in a folder: damaged, swapped, rolled back, linked; and disks and numbers that fail."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from chaos_stores import SCENES, World, contents, dump, everything, worlds
from chaos_trials import HEALED, LOST, NOTICED, OUTSIDE, SILENT
from corruption_cases import profile_spec

from cache_schema.errors import CacheError, NotFinite
from cache_schema.inspection.repair import repair
from cache_schema.inspection.verify import verify
from cache_schema.writer import StoreWriter

PARTS = (*(f"scenes/{name}" for name in SCENES), "teacher_head")
MINE = b"a drawing of mine"


def a_file(world: World, rng: random.Random) -> Path:
    """Any file of the store, small ones as likely as large ones."""
    return world.store / rng.choice(world.files)


def flipped(world: World, rng: random.Random) -> None:
    """One byte."""
    path = a_file(world, rng)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(data)


def zeroed(world: World, rng: random.Random) -> None:
    """A range of a file, as after a power failure."""
    path = a_file(world, rng)
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    stop = rng.randrange(start, len(data)) + 1
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)


def noise(world: World, rng: random.Random) -> None:
    """A range of other bytes."""
    path = a_file(world, rng)
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    n_bytes = rng.randrange(1, len(data) - start + 1)
    data[start : start + n_bytes] = rng.randbytes(n_bytes)
    path.write_bytes(data)


def torn(world: World, rng: random.Random) -> None:
    """The end is missing, or the whole content."""
    path = a_file(world, rng)
    os.truncate(path, rng.randrange(path.stat().st_size))


def grown(world: World, rng: random.Random) -> None:
    """Bytes behind the end, some of them a hole of a terabyte."""
    path = a_file(world, rng)
    if rng.random() < 0.2:
        os.truncate(path, 1 << 40)
        return
    with path.open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 100)))


def missing(world: World, rng: random.Random) -> None:
    """A file, or a whole part."""
    if rng.random() < 0.7:
        a_file(world, rng).unlink()
    else:
        shutil.rmtree(world.store / rng.choice(PARTS))


def swapped_files(world: World, rng: random.Random) -> None:
    """Two files in each other's place."""
    one, other = (world.store / name for name in rng.sample(world.files, 2))
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)


def swapped_scenes(world: World, rng: random.Random) -> None:
    """Two scenes in each other's place."""
    one, other = (world.store / "scenes" / name for name in rng.sample(list(SCENES), 2))
    one.rename(world.store / "moved")
    other.rename(one)
    (world.store / "moved").rename(other)


def _replaced(world: World, rng: random.Random, source: Path) -> None:
    what = rng.choice([*PARTS, "sealed.json", "zarr.json", "a file"])
    if what == "a file":
        what = rng.choice(world.files)
        if not (source / what).is_file():
            what = rng.choice(PARTS)
    target = world.store / what
    if target.is_dir():
        shutil.rmtree(target)
        shutil.copytree(source / what, target)
    else:
        shutil.copy(source / what, target)


def rolled_back(world: World, rng: random.Random) -> None:
    """A part or a file of an older run of the same dump."""
    _replaced(world, rng, world.older)


def of_another_store(world: World, rng: random.Random) -> None:
    """A part or a file of a store with another fingerprint."""
    _replaced(world, rng, world.foreign)


def linked(world: World, rng: random.Random) -> None:
    """A link in the place of a file or folder: to the same bytes, to other ones, to a device, to itself."""
    name = rng.choice([*PARTS, *PARTS, "scenes", rng.choice(world.files)])
    path, same = world.store / name, world.outside / "a store of mine" / name
    where = rng.choice([same, same, world.outside, world.outside / "mine", Path("/dev/zero"), path])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(where)
    if rng.random() < 0.5:  # and damage elsewhere, so that a repair has something to do
        _damage_beside(world, path, rng)


def _damage_beside(world: World, link: Path, rng: random.Random) -> None:
    """A flipped byte in a file of the store that is not behind the link: we touch nothing outside either."""
    inside = [world.store / name for name in world.files]
    path = rng.choice([path for path in inside if path != link and link not in path.parents])
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(data)


def special(world: World, rng: random.Random) -> None:
    """A pipe or an empty folder in the place of a file, a file in the place of a folder."""
    path = world.store / rng.choice([*world.files, *PARTS])
    was_folder = path.is_dir()
    shutil.rmtree(path) if was_folder else path.unlink()
    if was_folder:
        path.write_bytes(b"")
    elif rng.random() < 0.5:
        os.mkfifo(path)
    else:
        path.mkdir()


def strangers(world: World, rng: random.Random) -> None:
    """Somebody's own folder and files among those of the store, and a flipped byte."""
    place = world.store / rng.choice(["", "scenes", *PARTS])
    (place / "drawings").mkdir()
    (place / "drawings" / "cat.png").write_bytes(MINE)
    (place / "notes.txt").write_bytes(MINE)
    flipped(world, rng)


DAMAGE: dict[str, Callable[[World, random.Random], None]] = {
    "flipped byte": flipped,
    "zeroed range": zeroed,
    "range of noise": noise,
    "torn file": torn,
    "grown file": grown,
    "missing file or part": missing,
    "files swapped": swapped_files,
    "scenes swapped": swapped_scenes,
    "rolled back": rolled_back,
    "of another store": of_another_store,
    "link": linked,
    "pipe, folder or file in the wrong place": special,
    "files of a user, and damage": strangers,
}


class Faults:
    """Each trial does one of these to a store, asks who notices, and often repairs and dumps again."""

    limit_s = 60.0

    def __init__(self, folder: Path) -> None:
        self._folder, self._worlds = folder, worlds(folder)

    def kind(self, number: int, rng: random.Random) -> str:
        """See Family."""
        return [*DAMAGE, "disk full", "NaN or infinity"][number % (len(DAMAGE) + 2)]

    def trial(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """See Family."""
        world = rng.choice(self._worlds)
        if kind == "disk full":
            return full_disk(world, self._folder / "full.zarr", rng)
        if kind == "NaN or infinity":
            return not_finite(world, self._folder / "nan.zarr", rng)
        try:
            DAMAGE[kind](world, rng)
            outcome, detail = world.verdict()
            if outcome == NOTICED and (kind in ("link", "files of a user, and damage") or rng.random() < 0.3):
                return repaired(world)
            return outcome, detail
        finally:
            world.restore()


def repaired(world: World) -> tuple[str, str]:
    """Repair and dump again: the store is as it was, or somebody is told why it is not."""
    mine = _copies_of_mine(world)
    try:
        done = repair(world.store, verify(world.store))
        dump(world.store, world.profile)
        refused = False
    except (CacheError, OSError):  # the dump's command explains the system's errors
        done, refused = None, True
    if touched := world.outside_touched():
        return OUTSIDE, touched
    if _copies_of_mine(world) < mine:
        return OUTSIDE, "a user's own files are gone"
    if refused:
        return NOTICED, ""
    try:
        changed = everything(world.store) != world.intact
    except CacheError:
        return NOTICED, ""
    if changed:
        return SILENT, f"after the repair the store holds other values; taken out: {done.taken_out}"
    return HEALED if verify(world.store).complete else NOTICED, ""


def _copies_of_mine(world: World) -> int:
    return sum(what == MINE for what in contents(world.store).values())


@contextlib.contextmanager
def flipped_byte(path: Path, rng: random.Random) -> Iterator[None]:
    """One byte of a file is another during the block."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(whole)


@contextlib.contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Writes beyond that fail, as they do on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def full_disk(world: World, path: Path, rng: random.Random) -> tuple[str, str]:
    """A dump fails in the middle of a file; with room again it makes the same store."""
    sizes = sorted({len(what) for what in world.pristine.values() if isinstance(what, bytes)})
    try:
        with files_of_at_most(rng.choice(sizes[:-1])):
            dump(path, world.profile)
        return SILENT, "a dump without room for its files ended well"
    except OSError as error:
        if error.errno not in (errno.EFBIG, errno.ENOSPC):
            raise
    except CacheError:
        pass
    try:
        dump(path, world.profile)
        return (HEALED, "") if contents(path) == world.pristine else (LOST, "the resumed dump is another one")
    finally:
        shutil.rmtree(path, ignore_errors=True)


def not_finite(world: World, path: Path, rng: random.Random) -> tuple[str, str]:
    """A teacher gives a number that is none: its scene is not published."""
    spec = profile_spec(world.profile)
    array = rng.choice(spec.arrays)
    draws = np.random.default_rng(rng.randrange(1 << 32))
    values = {one.name: draws.normal(size=one.shape).astype(one.dtype) for one in spec.arrays}
    values[array.name].flat[rng.randrange(values[array.name].size)] = rng.choice([np.nan, np.inf, -np.inf])
    everywhere = {"pv_feats_0": np.ones((2, 4, 5), bool), "bev_feats": np.ones((6, 7), bool)}
    kept = {"areas": everywhere, "confident": np.ones(5, bool)} if world.profile == "focal" else {}
    try:
        writer = StoreWriter.create(path, spec, planned={"scene-0001": 1})
        with writer.scene("scene-0001", "scene-token", [("token", 1_500_000_000_000_000)]) as scene:
            scene.append("token", values, **kept)
    except NotFinite:
        there = writer.is_published("scene-0001")
        return (SILENT, "it was published") if there else (NOTICED, "")
    finally:
        shutil.rmtree(path, ignore_errors=True)
    return SILENT, f"{array.name} was stored"
