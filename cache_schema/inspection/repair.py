"""Take damaged parts out of a store, so that the next dump writes them again and nothing else.

Only what the plan names is touched, and of that only files that a dump writes are removed. Whatever else lies
among them is put aside, under a name in the root that counts as no part of the store.
"""

import contextlib
import math
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from cache_schema.coordinates import COORDINATE_FILES
from cache_schema.errors import CacheError, NotOurs, NotWritable
from cache_schema.fingerprint import digest as fingerprint_of
from cache_schema.folders import inside, open_below, put_aside
from cache_schema.inspection.faults import Findings
from cache_schema.manifest import MANIFEST_NAME, HeadManifest, SceneManifest, read_manifest
from cache_schema.seal import SEAL_NAME, read_seal, remove_seal
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath
from cache_schema.store_index import INDEX_NAME
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import SCENES_GROUP, open_root, read_plan, read_root
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.zarr_metadata import METADATA_NAME, parameter_key, samples_per_shard, shard_key


@dataclass
class Repaired:
    """Relative paths of what was taken out, and names of what was put aside because it may be somebody's."""

    taken_out: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)


def repair(store: StorePath, findings: Findings) -> Repaired:
    """Unpublish what `verify` found damaged: all of it, or nothing.

    The seal goes first, because a sealed store never lacks a scene. It goes only when the same dump can make
    another one: with a sound root that has a plan, and when every damaged part can be taken out.

    Raises NotOurs, and nothing was touched, when that is not so; NotWritable as the disk does.
    """
    parts = findings.damaged_parts
    done = Repaired()
    if not parts and not any(fault.path in (SEAL_NAME, INDEX_NAME) for fault in findings.faults):
        return done
    try:
        known = _known_files(store, parts)
        there = [part for part in parts if isinstance(store, S3Path) or _can_be_taken_out(store, part)]
        if findings.sealed:
            remove_seal(store)
            done.taken_out.append(SEAL_NAME)
        for part in there:
            _unpublish(store, part, known[part], done)
    except OSError as error:
        raise NotWritable(f"{store} cannot be repaired: {error.strerror}: {error.filename or ''}") from None
    return done


def _known_files(store: StorePath, parts: list[str]) -> dict[str, list[str]]:
    """For each part the relative paths of the files that a dump writes into it, the manifest first."""
    try:
        spec, plan = read_root(store), read_plan(store)
    except CacheError as error:
        raise NotOurs(f"nothing was taken out, as no dump could write it again: {error}") from None
    if plan is None:
        raise NotOurs(f"nothing was taken out: {store} has no plan, so nobody knows what belongs in it")
    _require_own_root(store, spec, plan)
    return {
        part: _head_files(store)
        if part == HEAD_GROUP
        else _scene_files(spec, plan.n_samples[PurePosixPath(part).name])
        for part in parts
    }


def _require_own_root(store: StorePath, spec: StoreSpec, plan: StorePlan) -> None:
    """Raise NotOurs when all parts are of another dump than the root: then the root is out of place."""
    with contextlib.suppress(CacheError):
        if read_seal(store).root_sha256 == open_root(store).sha256:
            return
    found = []
    for folder, kind in (
        *((store / SCENES_GROUP / name, SceneManifest) for name in plan.n_samples),
        (store / HEAD_GROUP, HeadManifest),
    ):
        with contextlib.suppress(CacheError, FileNotFoundError):
            found.append(read_manifest(folder, kind).fingerprint)
    if found and fingerprint_of(spec) not in found:
        raise NotOurs(
            f"nothing was taken out: {store / METADATA_NAME} is of another dump than everything else in the"
            " store. Put its own back, or dump into a new store."
        )


def _scene_files(spec: StoreSpec, n_samples: int) -> list[str]:
    files = [MANIFEST_NAME, METADATA_NAME, *sorted(COORDINATE_FILES)]
    for array in spec.stored_arrays:
        n_shards = math.ceil(n_samples / samples_per_shard(array, n_samples))
        files += [f"{array.name}/{shard_key(array, number)}" for number in range(n_shards)]
        files.append(f"{array.name}/{METADATA_NAME}")
    return files


def _head_files(store: StorePath) -> list[str]:
    with contextlib.suppress(CacheError, FileNotFoundError):
        records = read_manifest(store / HEAD_GROUP, HeadManifest).parameters
        files = [f"{r.name}/{name}" for r in records for name in (parameter_key(r.shape), METADATA_NAME)]
        return [MANIFEST_NAME, METADATA_NAME, *files]
    return [MANIFEST_NAME]


def _can_be_taken_out(store: Path, part: str) -> bool:
    """Whether there is something to take out. Raises NotOurs when it may not be touched."""
    *parents, name = PurePosixPath(part).parts
    with inside(store, *parents) as parent:
        if name not in os.listdir(parent):
            return False
        if (store / part).is_symlink() or (store / part).is_dir():
            os.close(open_below(parent, name, store / part))
        if not os.access(".", os.W_OK, dir_fd=parent):
            raise NotWritable(f"{store / part} cannot be taken out: its folder is not writable")
    return True


def _unpublish(store: StorePath, part: str, files: list[str], done: Repaired) -> None:
    """Take a part away: from one moment to the next, then file by file."""
    if isinstance(store, S3Path):
        for file in files:  # after the first, the manifest, no reader takes notice of the others
            (store / part / file).unlink()
        done.taken_out.append(part)
        return
    ours = (store / part / MANIFEST_NAME).is_file()
    aside = put_aside(store, *PurePosixPath(part).parts)
    done.taken_out.append(part)
    if ours:
        _remove_files(store, aside, files)
    if os.path.lexists(store / aside):
        done.aside.append(aside)


def _remove_files(store: Path, name: str, files: list[str]) -> None:
    """Remove these files of a folder in the root, and the folders that are empty after it."""
    folders = sorted({str(PurePosixPath(file).parent) for file in files} - {"."})
    for file in files:
        *parents, last = PurePosixPath(file).parts
        with contextlib.suppress(OSError, NotOurs), inside(store, name, *parents) as parent:
            os.unlink(last, dir_fd=parent)
    with inside(store, name) as folder:
        for below in folders:
            with contextlib.suppress(OSError):
                os.rmdir(below, dir_fd=folder)
    with contextlib.suppress(OSError), inside(store) as root:
        os.rmdir(name, dir_fd=root)
