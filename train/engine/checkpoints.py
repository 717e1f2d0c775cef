"""Checkpoints to continue from: each with a digest beside it, and chosen by it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

from camera3d.checkpoint import LOAD_ERRORS, reason_of
from camera3d.errors import ConfigInvalid, shown
from camera3d.files import replace_with, sha256_of

DIGEST_SUFFIX = ".sha256"


def digest_path(checkpoint: Path) -> Path:
    """Of the file beside a checkpoint that holds its digest, as `sha256sum` writes and checks it."""
    return checkpoint.with_name(checkpoint.name + DIGEST_SUFFIX)


def write_digest(partial: Path, checkpoint: Path) -> None:
    """Write the digest of a checkpoint that is about to get its name: it never stands there without one."""
    line = f"{sha256_of(partial)}  {checkpoint.name}\n"
    replace_with(digest_path(checkpoint), lambda temporary: temporary.write_text(line))


def remove_strays(work_dir: str | Path) -> None:
    """Remove the digests of checkpoints that are gone."""
    for path in Path(work_dir).glob(f"iter_*.pth{DIGEST_SUFFIX}"):
        if not path.with_name(path.name.removesuffix(DIGEST_SUFFIX)).exists():
            path.unlink(missing_ok=True)


def checkpoints(work_dir: str | Path) -> list[Path]:
    """Those of a folder, the one with the most steps first."""
    found = {path: path.stem.removeprefix("iter_") for path in Path(work_dir).glob("iter_*.pth")}
    return sorted((p for p, steps in found.items() if steps.isdigit()), key=lambda p: -int(found[p]))


def chosen_checkpoint(work_dir: str | Path) -> Path | None:
    """The newest intact checkpoint, as the first process sees it; it says which ones it passed over, and why.

    Raises ConfigInvalid, in every process, when none of those there is intact, and on a process that does not
    see the chosen one.
    """
    chosen: list[Path | ConfigInvalid | None] = [None]
    if is_main_process():
        chosen = [_newest_intact(work_dir)]
    broadcast_object_list(chosen)
    (found,) = chosen
    if isinstance(found, ConfigInvalid):
        raise found
    if found is not None and not found.is_file():
        raise ConfigInvalid(f"{found} is not here: all nodes must share --work-dir {work_dir}")
    return found


def _newest_intact(work_dir: str | Path) -> Path | ConfigInvalid | None:
    passed_over = []
    for path in checkpoints(work_dir):
        fault = fault_of(path)
        if fault is None:
            for line in passed_over:
                print_log(f"not resumed from {line}", "current", level=logging.WARNING)
            return path
        passed_over.append(f"{path}: {fault}")
    if not passed_over:
        return None
    return ConfigInvalid(
        f"--work-dir {work_dir} has no intact checkpoint to continue from:\n{shown(passed_over)}\n"
        "Start anew in another folder; --init-from takes the weights of a last.pth."
    )


def fault_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint. One without a digest, of an earlier version, is loaded to tell.

    To be called under `harmless_globals`.
    """
    try:
        noted = digest_path(checkpoint).read_text().split()
        wanted = noted[0] if noted else "nothing"
        found = sha256_of(checkpoint)
        if found != wanted:
            return f"its bytes changed: sha256 {found}, and {digest_path(checkpoint).name} says {wanted}"
        return None
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        return f"it cannot be checked: {error}"
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except LOAD_ERRORS as error:
        return f"it cannot be read: {reason_of(error)}"
    return None
