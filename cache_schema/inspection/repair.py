"""Take damaged parts out of a store, so that the next dump writes them again and nothing else."""

import secrets
import shutil
from collections.abc import Iterable

from cache_schema.files import STAGING_PREFIX, sync_folder
from cache_schema.inspection.faults import Findings
from cache_schema.manifest import MANIFEST_NAME
from cache_schema.seal import SEAL_NAME, remove_seal
from cache_schema.storage import S3Path, StorePath


def repair(store: StorePath, findings: Findings) -> list[str]:
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


def unpublish(store: StorePath, parts: Iterable[str]) -> list[str]:
    """Take parts, given as relative folders, away: from one moment to the next, then file by file."""
    removed = []
    for part in parts:
        folder = store / part
        if isinstance(folder, S3Path):
            (folder / MANIFEST_NAME).unlink()  # from here on no reader takes notice of the others
            for name in folder.all_names():
                (folder / name).unlink()
        else:
            doomed = store / f"{STAGING_PREFIX}damaged-{folder.name}-{secrets.token_hex(4)}"
            folder.rename(doomed)
            sync_folder(folder.parent)
            shutil.rmtree(doomed)
        removed.append(part)
    return removed
