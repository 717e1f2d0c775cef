"""The record that a store is complete: written once, by whoever finishes last.

Everything else in a store is reached from it by digests: the root with its spec and plan, the index and by it
each scene's manifest, and from there its arrays. Two stores are the same to the last byte when their seals
are.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from cache_schema.documents import is_there, read_document
from cache_schema.errors import Corrupt, StoreNotFound, Unreadable
from cache_schema.fields import Fact, integer, optional
from cache_schema.files import publish_file, sync_to_disk
from cache_schema.fingerprint import digest as fingerprint_of
from cache_schema.folders import inside
from cache_schema.index_file import read_index, write_index
from cache_schema.manifest import MANIFEST_NAME, pack_manifest, unpack_manifest
from cache_schema.published import read_scene
from cache_schema.spec import sha256
from cache_schema.storage import S3Path, StorePath, each_read, fetched_again
from cache_schema.store_index import INDEX_NAME, IndexedScene, StoreIndex
from cache_schema.store_plan import StorePlan, some
from cache_schema.store_root import read_root
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.zarr_metadata import METADATA_NAME

SEAL_NAME = "sealed.json"
_SEAL_ANEW = (
    "Verify the store (cache_schema/inspect_cache.py verify): --repair takes such a seal off,\n"
    "and the same dump seals the store anew."
)


@dataclass(frozen=True, kw_only=True)
class Seal(Fact):
    """What a finished store holds. It depends on nothing but that, so that racing sealers write the same.

    Its digest is the store's: equal stores have equal ones, and no other store has the same.
    """

    n_scenes: Annotated[int, integer(1)]
    n_samples: Annotated[int, integer(1)]
    index_nbytes: Annotated[int, integer(1)]
    index_sha256: Annotated[str, sha256]  # of the index, and so of every scene's manifest
    root_sha256: Annotated[str, sha256]  # of the root's zarr.json
    teacher_head_sha256: Annotated[str | None, optional(sha256)]  # of its manifest; None when there is none

    @cached_property
    def digest(self) -> str:
        """The store's digest: the SHA-256 of the seal's file, as 64 hexadecimal digits."""
        return hashlib.sha256(pack_manifest(self)).hexdigest()


def make_index(store: StorePath, plan: StorePlan) -> StoreIndex:
    """The index of a store whose planned scenes are all published.

    Raises Corrupt and FingerprintMismatch as `read_scene` does.
    """
    fingerprint = fingerprint_of(read_root(store))

    def read(name: str) -> IndexedScene:
        scene = read_scene(store, name, fingerprint, plan)
        return IndexedScene(scene.name, scene.manifest_sha256, scene.sample_tokens)

    return StoreIndex.of(each_read(store, read, plan.n_samples))


def make_seal(store: StorePath, index: StoreIndex) -> Seal:
    """The seal of a store with that index."""
    head = store / HEAD_GROUP / MANIFEST_NAME
    return Seal(
        n_scenes=index.n_scenes,
        n_samples=index.n_samples,
        index_nbytes=len(index.data),
        index_sha256=hashlib.sha256(index.data).hexdigest(),
        root_sha256=_sha256(store / METADATA_NAME),
        teacher_head_sha256=_sha256(head) if is_there(head) else None,
    )


def sealed_index(store: StorePath, seal: Seal) -> StoreIndex:
    """The index that a seal speaks of. Raises Corrupt as `read_index` does, Unreadable."""
    index = read_index(store, seal.index_nbytes, seal.index_sha256)
    if (index.n_scenes, index.n_samples) != (seal.n_scenes, seal.n_samples):
        raise Corrupt(f"{store / SEAL_NAME} names other scenes and samples than the store's index")
    return index


def write_seal(store: StorePath, seal: Seal, index: StoreIndex) -> bool:
    """Seal the store; returns whether this call did it and not another process before it.

    Raises Corrupt when the store bears a seal that says something else.
    """
    if not is_there(store / SEAL_NAME):
        write_index(store, index)  # first: a seal never speaks of an index that is not there
        if publish_file(store, store / SEAL_NAME, pack_manifest(seal)):
            return True
    before = read_seal(store)
    if before != seal:
        others = _other_scenes(store, before, index)
        raise Corrupt(
            f"{store / SEAL_NAME} was made for other contents than the store has"
            f"{f': scenes {some(others)} differ' if others else ''}.\n"
            "Verify the store (cache_schema/inspect_cache.py verify); remove the seal when all is well."
        )
    try:
        sealed_index(store, seal)
    except Corrupt:
        write_index(store, index)
    return False


def _other_scenes(store: StorePath, before: Seal, index: StoreIndex) -> list[str]:
    """Scenes of which the sealed index has another manifest, as far as it can be read."""
    try:
        sealed = sealed_index(store, before)
    except (Corrupt, Unreadable):
        return []
    return [
        name for name in index.scene_names() if sealed.manifest_sha256(name) != index.manifest_sha256(name)
    ]


def read_seal(store: StorePath) -> Seal:
    """Raises StoreNotFound when the store is not sealed, Corrupt when the seal is damaged."""
    path = store / SEAL_NAME
    try:
        return fetched_again(path, lambda: unpack_manifest(read_document(path), path, Seal))
    except FileNotFoundError:
        raise StoreNotFound(f"{store} is not sealed: scenes are missing, or a dump still runs") from None
    except Corrupt as error:
        raise Corrupt(f"{error}\n{_SEAL_ANEW}") from None


def remove_seal(store: StorePath) -> None:
    """Take the seal off, and its index after it, before a scene is taken out of the store."""
    for name in (SEAL_NAME, INDEX_NAME):
        if isinstance(store, S3Path):
            (store / name).unlink()
            continue
        with contextlib.suppress(FileNotFoundError), inside(store) as root:
            os.unlink(name, dir_fd=root)
            sync_to_disk(root)


def _sha256(path: StorePath) -> str:
    return hashlib.sha256(read_document(path)).hexdigest()
