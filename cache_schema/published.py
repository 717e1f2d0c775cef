"""The manifest of a published scene, as far as a reader of many looks at it: whose it is, of what samples.

Testing every field of it takes ten times as long; that is left to whoever opens the scene.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from cache_schema import names
from cache_schema.documents import read_document
from cache_schema.errors import Corrupt, FingerprintMismatch, SpecInvalid, shown
from cache_schema.fields import Unfit, each
from cache_schema.manifest import MANIFEST_NAME, SceneManifest, tested, unpack_raw
from cache_schema.storage import StorePath, fetched_again
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import SCENES_GROUP

REDO = (
    "Verify the store (cache_schema/inspect_cache.py verify): --repair takes such scenes out,\n"
    "and the same dump writes them again."
)
_tokens = each(names.token, minimum=1, unique=True)


@dataclass(frozen=True)
class PublishedScene:
    """A scene's name, its samples in time order, the SHA-256 of its manifest, and what else that records."""

    name: str
    sample_tokens: tuple[str, ...]
    manifest_sha256: str
    path: StorePath  # of the manifest
    raw: dict[str, Any]

    def manifest(self) -> SceneManifest:
        """All that is recorded, every field tested. Raises Corrupt."""
        return tested(self.raw, self.path, SceneManifest)


def read_scene(
    store: StorePath, name: str, fingerprint: str, plan: StorePlan | None, sealed: str | None = None
) -> PublishedScene:
    """The scene in the folder of that name.

    Args:
        sealed: SHA-256 that its manifest must have; None when nobody knows.

    Raises:
        Corrupt: the manifest is gone or damaged, that of another scene, not the one that was sealed, or of
            another length than planned.
        FingerprintMismatch: it was written under another spec than the store's.
    """
    where = f"scene {name} of {store}"
    path = store / SCENES_GROUP / name / MANIFEST_NAME

    def read() -> tuple[str, dict[str, Any]]:
        data = read_document(path)
        digest = hashlib.sha256(data).hexdigest()
        if sealed not in (None, digest):
            raise Corrupt(f"{where} is not the one that was sealed.\n{REDO}")
        return digest, unpack_raw(data, path)

    try:
        digest, raw = fetched_again(path, read)
    except FileNotFoundError:
        raise Corrupt(f"{where} is missing: {path} is gone.\n{REDO}") from None
    if raw.get("scene_name") != name:
        raise Corrupt(f"{where} holds the manifest of {shown(raw.get('scene_name'))}.\n{REDO}")
    if raw.get("fingerprint") != fingerprint:
        raise FingerprintMismatch(
            f"{where} was written by another dump than the one that began it.\n"
            "Remove its folder, and run the dump again over the store to make it anew."
        )
    try:
        tokens = _tokens(raw.get("sample_tokens"))
    except (Unfit, SpecInvalid) as error:
        raise Corrupt(f"{path}: sample_tokens: {error}") from None
    planned = None if plan is None else plan.n_samples.get(name)
    if planned not in (None, len(tokens)):
        raise Corrupt(f"{where} has {len(tokens)} samples, {planned} are planned.\n{REDO}")
    return PublishedScene(name, tokens, digest, path, raw)
