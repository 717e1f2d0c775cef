"""The work folder of a training: one training's alone, and never another's results under its own."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process

from camera3d.errors import ConfigInvalid
from train.engine.checkpoints import checkpoints

LOCK_NAME = ".lock"
EXPORTS = ("last.pth", "best.pth")


class WorkDirTaken(ConfigInvalid):
    """The work folder is another training's, one that runs or one that ran; every process says so."""

    on_every_rank = True


@contextmanager
def work_folder(work_dir: str | Path, *, resume: bool) -> Iterator[None]:
    """Hold the folder for this training, and clear what a killed one left half-written.

    The first process holds it for all. The kernel lets go of it with that process, however it ends.

    Raises WorkDirTaken, in every process.
    """
    folder, lock = Path(work_dir), None
    outcome: list[WorkDirTaken | None] = [None]
    if is_main_process():
        try:
            lock = _locked(folder)
            _require_ours(folder, resume=resume)
            for partial in folder.glob(".*.pth.*.tmp"):
                partial.unlink(missing_ok=True)
        except WorkDirTaken as error:
            outcome = [error]
    broadcast_object_list(outcome)
    try:
        if outcome[0] is not None:
            raise outcome[0]
        yield
    finally:
        if lock is not None:
            os.close(lock)


def require_free(work_dir: str | Path, *, resume: bool) -> None:
    """Raise WorkDirTaken for another's results, as `work_folder` would, or where nothing can be written."""
    folder = Path(work_dir).absolute()
    _require_ours(folder, resume=resume)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise WorkDirTaken(f"--work-dir {work_dir}: {there} cannot be written to. Give another folder.")


def _locked(folder: Path) -> int:
    """Descriptor of the lock file. A record lock: workers that outlive a killed parent have no part in it."""
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise WorkDirTaken(
            f"--work-dir {folder} cannot be written to: {error.strerror}. Give another folder."
        ) from error
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            warnings.warn(
                f"{path} cannot be locked ({error.strerror}): make sure that no other training uses"
                " the folder",
                stacklevel=2,
            )
            return lock
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise WorkDirTaken(
            f"--work-dir {folder} is in use by {holder}, which holds {path}: wait for it to end, or give"
            " another folder"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def _require_ours(folder: Path, *, resume: bool) -> None:
    """A new run in the folder of another would overwrite its results, and a later --resume could mix them."""
    found = [path.name for path in checkpoints(folder)]
    exports = [name for name in EXPORTS if (folder / name).exists()]
    if not resume and (found or exports):
        raise WorkDirTaken(
            f"--work-dir {folder} holds {', '.join((*found, *exports))} of a run: continue it with"
            " --resume, or give another folder"
        )
    if exports and not found:
        raise WorkDirTaken(
            f"--work-dir {folder} holds {', '.join(exports)} of a run but no checkpoint to continue from:"
            " a new run would overwrite them. Give another folder, or move them away."
        )
