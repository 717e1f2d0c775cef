"""The record that a store is complete: written once, by whoever finishes last.

Everything else in a store is reached from it by digests: the root with its spec and plan, each scene's
manifest and from there its arrays. Two stores are the same to the last byte when their seals are.
"""

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cache_schema import names
from cache_schema.errors import Corrupt, StoreNotFound
from cache_schema.fields import Fact, each, fact, integer, optional, text
from cache_schema.files import publish_file, sync_folder
from cache_schema.manifest import MANIFEST_NAME, pack_manifest, read_raw_manifest, unpack_manifest
from cache_schema.storage import StorePath
from cache_schema.store_plan import StorePlan
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.zarr_metadata import METADATA_NAME

SEAL_NAME = "sealed.json"
_SCENES = "scenes"

digest = text(r"[0-9a-f]{64}", "a sha256 as 64 small hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class SealedScene(Fact):
    """A scene of the finished store."""

    scene_name: Annotated[str, names.scene_name]
    n_samples: Annotated[int, integer(1)]
    manifest_sha256: Annotated[str, digest]


@dataclass(frozen=True, kw_only=True)
class Seal(Fact):
    """What a finished store holds. It depends on nothing but that, so that racing sealers write the same."""

    n_samples: Annotated[int, integer(1)]
    scenes: Annotated[tuple[SealedScene, ...], each(fact(SealedScene), minimum=1)]
    root_sha256: Annotated[str, digest]  # of the root's zarr.json
    teacher_head_sha256: Annotated[str | None, optional(digest)]  # of its manifest; None when there is none


def make_seal(store: StorePath, plan: StorePlan) -> Seal:
    """The seal of a store whose planned scenes are all published.

    Raises Corrupt when a manifest is damaged or of another length than planned.
    """
    scenes = []
    for scene in plan.scenes:
        folder = store / _SCENES / scene.scene_name
        n_samples = len(read_raw_manifest(folder)["sample_tokens"])
        if n_samples != scene.n_samples:
            raise Corrupt(f"scene {scene.scene_name} has {n_samples} samples, {scene.n_samples} are planned")
        scenes.append(
            SealedScene(
                scene_name=scene.scene_name,
                n_samples=n_samples,
                manifest_sha256=_sha256(folder / MANIFEST_NAME),
            )
        )
    head = store / HEAD_GROUP / MANIFEST_NAME
    return Seal(
        n_samples=sum(scene.n_samples for scene in scenes),
        scenes=tuple(scenes),
        root_sha256=_sha256(store / METADATA_NAME),
        teacher_head_sha256=_sha256(head) if head.exists() else None,
    )


def write_seal(store: StorePath, seal: Seal) -> bool:
    """Seal the store; returns whether this call did it and not another process before it.

    Raises Corrupt when the store bears a seal that says something else.
    """
    written = publish_file(store, store / SEAL_NAME, pack_manifest(seal))
    if not written and read_seal(store) != seal:
        raise Corrupt(
            f"{store / SEAL_NAME} was made for other contents than the store has.\n"
            "Verify the store (cache_schema/inspect_cache.py verify); remove the seal when all is well."
        )
    return written


def read_seal(store: StorePath) -> Seal:
    """Raises StoreNotFound when the store is not sealed, Corrupt when the seal is damaged."""
    path = store / SEAL_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StoreNotFound(f"{store} is not sealed: scenes are missing, or a dump still runs") from None
    return unpack_manifest(data, path, Seal)


def remove_seal(store: StorePath) -> None:
    """Take the seal off, before a scene is taken out of the store."""
    with contextlib.suppress(FileNotFoundError):
        (store / SEAL_NAME).unlink()
        if isinstance(store, Path):
            sync_folder(store)


def _sha256(path: StorePath) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
