"""Whether somebody else fills the same store already: two dumps that both do everything do it twice."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cache_schema.files import other_machines_at_work
from cache_schema.storage import S3Path, StorePath
from camera3d.errors import Camera3DError
from extract.sharding import Shard

# Another machine's lock cannot be asked for: who wrote to a scene in this time is taken to be at work.
RECENT_S = 600


class StoreInUse(Camera3DError):
    """Another dump fills this store, and nobody said how the two share the work."""


@contextlib.contextmanager
def one_dump_at_a_time(store: StorePath, shard: Shard, *, chosen: bool) -> Iterator[None]:
    """Hold a place among the dumps of a store during the block.

    On this machine a lock outside the store tells, which the kernel lets go of with the process, however it
    ends, and which its data workers have no part in. An object store tells nothing.

    Args:
        chosen: whether the user named the part, so that others at work are expected.

    Raises StoreInUse when this dump would do everything and another one is at work.
    """
    if isinstance(store, S3Path):
        yield
        return
    alone = shard.count == 1 and not chosen
    lock = _opened(store)
    try:
        if lock is not None and not _locked(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH) and alone:
            raise _in_use(store, "another process of this machine")
        if alone and store.is_dir() and (others := other_machines_at_work(store, RECENT_S)):
            raise _in_use(
                store, f"another machine, which wrote to {others[0]} within {RECENT_S // 60} minutes,"
            )
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _opened(store: Path) -> int | None:
    name = hashlib.sha256(os.fsencode(os.path.realpath(store))).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"focalcache-dump-{os.getuid()}-{name}.lock"
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None  # nowhere to hold a lock: nobody is noticed, and nobody stopped


def _locked(lock: int, kind: int) -> bool:
    """A record lock, or none when somebody has one that does not go with it. Forks have no part in these."""
    try:
        fcntl.lockf(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _in_use(store: Path, who: str) -> StoreInUse:
    return StoreInUse(
        f"{who} is dumping into {store}, and this dump would do all of it again. To share the work, run this"
        " command with --shard 2/2: it takes one half, and the other dump skips what it finds published."
        " Or begin with torchrun --nproc-per-node N, or with --shard 1/N to N/N, such as in a job array."
        " --shard 1/1 continues regardless."
    )
