"""The record that a store is complete: written once, by whoever finishes last.

Everything else in a store is reached from it by digests: the root with its spec and plan, each scene's
manifest and from there its arrays. Two stores are the same to the last byte when their seals are.
"""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from cache_schema import names
from cache_schema.documents import is_there, read_document
from cache_schema.errors import Corrupt, StoreNotFound
from cache_schema.fields import Fact, each, fact, integer, optional
from cache_schema.files import publish_file, sync_to_disk
from cache_schema.fingerprint import digest as fingerprint_of
from cache_schema.folders import inside
from cache_schema.manifest import MANIFEST_NAME, pack_manifest, unpack_manifest
from cache_schema.published import read_scene
from cache_schema.spec import sha256
from cache_schema.storage import S3Path, StorePath
from cache_schema.store_plan import StorePlan, some
from cache_schema.store_root import read_root
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.zarr_metadata import METADATA_NAME

SEAL_NAME = "sealed.json"


@dataclass(frozen=True, kw_only=True)
class SealedScene(Fact):
    """A scene of the finished store."""

    scene_name: Annotated[str, names.scene_name]
    n_samples: Annotated[int, integer(1)]
    manifest_sha256: Annotated[str, sha256]


@dataclass(frozen=True, kw_only=True)
class Seal(Fact):
    """What a finished store holds. It depends on nothing but that, so that racing sealers write the same.

    Its digest is the store's: equal stores have equal ones, and no other store has the same.
    """

    n_samples: Annotated[int, integer(1)]
    scenes: Annotated[tuple[SealedScene, ...], each(fact(SealedScene), minimum=1)]
    root_sha256: Annotated[str, sha256]  # of the root's zarr.json
    teacher_head_sha256: Annotated[str | None, optional(sha256)]  # of its manifest; None when there is none

    @property
    def manifest_sha256(self) -> dict[str, str]:
        """Digests of the manifests by scene name."""
        return {scene.scene_name: scene.manifest_sha256 for scene in self.scenes}

    @cached_property
    def digest(self) -> str:
        """The store's digest: the SHA-256 of the seal's file, as 64 hexadecimal digits."""
        return hashlib.sha256(pack_manifest(self)).hexdigest()


def make_seal(store: StorePath, plan: StorePlan) -> Seal:
    """The seal of a store whose planned scenes are all published.

    Raises Corrupt and FingerprintMismatch as `read_scene` does.
    """
    fingerprint = fingerprint_of(read_root(store))
    scenes = [read_scene(store, scene.scene_name, fingerprint, plan) for scene in plan.scenes]
    head = store / HEAD_GROUP / MANIFEST_NAME
    return Seal(
        n_samples=sum(len(scene.sample_tokens) for scene in scenes),
        scenes=tuple(
            SealedScene(
                scene_name=scene.name,
                n_samples=len(scene.sample_tokens),
                manifest_sha256=scene.manifest_sha256,
            )
            for scene in scenes
        ),
        root_sha256=_sha256(store / METADATA_NAME),
        teacher_head_sha256=_sha256(head) if is_there(head) else None,
    )


def write_seal(store: StorePath, seal: Seal) -> bool:
    """Seal the store; returns whether this call did it and not another process before it.

    Raises Corrupt when the store bears a seal that says something else.
    """
    written = publish_file(store, store / SEAL_NAME, pack_manifest(seal))
    if not written and (before := read_seal(store)) != seal:
        had = before.manifest_sha256
        others = [name for name, digest in seal.manifest_sha256.items() if had.get(name) != digest]
        raise Corrupt(
            f"{store / SEAL_NAME} was made for other contents than the store has"
            f"{f': scenes {some(others)} differ' if others else ''}.\n"
            "Verify the store (cache_schema/inspect_cache.py verify); remove the seal when all is well."
        )
    return written


def read_seal(store: StorePath) -> Seal:
    """Raises StoreNotFound when the store is not sealed, Corrupt when the seal is damaged."""
    path = store / SEAL_NAME
    try:
        data = read_document(path)
    except FileNotFoundError:
        raise StoreNotFound(f"{store} is not sealed: scenes are missing, or a dump still runs") from None
    return unpack_manifest(data, path, Seal)


def remove_seal(store: StorePath) -> None:
    """Take the seal off, before a scene is taken out of the store."""
    if isinstance(store, S3Path):
        (store / SEAL_NAME).unlink()
        return
    with contextlib.suppress(FileNotFoundError), inside(store) as root:
        os.unlink(SEAL_NAME, dir_fd=root)
        sync_to_disk(root)


def _sha256(path: StorePath) -> str:
    return hashlib.sha256(read_document(path)).hexdigest()
