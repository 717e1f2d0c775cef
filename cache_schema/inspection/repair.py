"""Take damaged parts out of a store, so that the next dump writes them again and nothing else."""

import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from cache_schema.files import STAGING_PREFIX, sync_folder
from cache_schema.inspection.faults import Findings
from cache_schema.seal import SEAL_NAME, remove_seal


def repair(store: Path, findings: Findings) -> list[str]:
    """Unpublish what `verify` found damaged; returns the relative paths of what is gone.

    The seal goes first: a sealed store never lacks a scene. Faults of the root, and files that do not belong
    into the store, are left alone.
    """
    parts = findings.damaged_parts
    seal_is_wrong = any(fault.path == SEAL_NAME for fault in findings.faults)
    removed = []
    if (parts or seal_is_wrong) and (store / SEAL_NAME).exists():
        remove_seal(store)
        removed.append(SEAL_NAME)
    return removed + unpublish(store, parts)


def unpublish(store: Path, parts: Iterable[str]) -> list[str]:
    """Take parts, given as relative folders, away: from one moment to the next, then file by file."""
    removed = []
    for part in parts:
        folder = store / part
        doomed = store / f"{STAGING_PREFIX}damaged-{folder.name}-{secrets.token_hex(4)}"
        folder.rename(doomed)
        sync_folder(folder.parent)
        shutil.rmtree(doomed)
        removed.append(part)
    return removed
