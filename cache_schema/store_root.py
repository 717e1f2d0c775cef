"""The root group of a store: where its spec stands and where the scenes are."""

import contextlib
import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cache_schema import names
from cache_schema.codec import crc32c
from cache_schema.documents import is_there, parse_json, read_document
from cache_schema.errors import AlreadyPublished, Corrupt, SpecInvalid, StoreNotFound, printable
from cache_schema.fields import Unfit, canonical_json
from cache_schema.files import STAGING_PREFIX, publish_file
from cache_schema.manifest import MANIFEST_NAME
from cache_schema.spec import StoreSpec, read_spec
from cache_schema.storage import StorePath, each_read, fetched_again, names_in
from cache_schema.store_plan import StorePlan
from cache_schema.zarr_metadata import METADATA_NAME, group_document

SCENES_GROUP = "scenes"
SPEC_ATTRIBUTE = "focalcache"
SPEC_CHECKSUM_ATTRIBUTE = "focalcache_crc32c"
PLAN_ATTRIBUTE = "focalcache_plan"
PLAN_CHECKSUM_ATTRIBUTE = "focalcache_plan_crc32c"


def create_root(path: StorePath, spec: StoreSpec, plan: StorePlan | None = None) -> None:
    """Make an empty store. The root's `zarr.json` comes last and at once: with it the store exists.

    Raises AlreadyPublished when there is one, be it since a moment ago, or when other things are there.
    """
    exists = AlreadyPublished(f"{path} is a store already; open it to add scenes to it")
    if (path / METADATA_NAME).exists():
        raise exists
    scenes = path / SCENES_GROUP
    strangers = [n for n in names_in(path) if n != SCENES_GROUP and not n.startswith(STAGING_PREFIX)]
    strangers += [f"{SCENES_GROUP}/{n}" for n in names_in(scenes) if n != METADATA_NAME]
    if strangers or (isinstance(path, Path) and path.exists() and not path.is_dir()):
        holds = f"it holds {', '.join(map(printable, strangers[:5]))}" if strangers else "it is not a folder"
        raise AlreadyPublished(f"{path} is not a store, and not empty: {holds}")
    if isinstance(scenes, Path):
        scenes.mkdir(parents=True, exist_ok=True)
    publish_file(path, scenes / METADATA_NAME, group_document({}))
    raw = spec.to_dict()
    attributes = {SPEC_ATTRIBUTE: raw, SPEC_CHECKSUM_ATTRIBUTE: crc32c(canonical_json(raw))}
    if plan is not None:
        raw = plan.to_dict()
        attributes |= {PLAN_ATTRIBUTE: raw, PLAN_CHECKSUM_ATTRIBUTE: crc32c(canonical_json(raw))}
    if not publish_file(path, path / METADATA_NAME, group_document(attributes)):
        raise exists


@dataclass(frozen=True)
class Root:
    """What one reading of the root's `zarr.json` says.

    Attributes:
        sha256: of the document.
    """

    path: StorePath
    document: bytes
    spec: StoreSpec
    sha256: str

    @cached_property
    def plan(self) -> StorePlan | None:
        """Which scenes the store is to hold; None when it was made without saying so.

        Of many scenes it takes seconds. Raises Corrupt when it does not match its checksum.
        """
        return _plan(_attributes(self.document, self.path), self.path)


def open_root(path: StorePath) -> Root:
    """The root of the store at `path`.

    Raises StoreNotFound, SchemaTooNew, or Corrupt when the spec does not match its checksum.
    """

    def read() -> Root:
        data = _root_document(path)
        return Root(path, data, _spec(_attributes(data, path), path), hashlib.sha256(data).hexdigest())

    return fetched_again(path, read)


def read_root(path: StorePath) -> StoreSpec:
    """The spec of the store at `path`.

    Raises StoreNotFound, SchemaTooNew, or Corrupt when the spec does not match its checksum.
    """
    return open_root(path).spec


def read_plan(path: StorePath) -> StorePlan | None:
    """Which scenes the store at `path` is to hold; None when it was made without saying so.

    Raises StoreNotFound, or Corrupt when the plan does not match its checksum.
    """
    return fetched_again(path, lambda: _plan(_attributes(_root_document(path), path), path))


def _spec(attributes: dict[str, Any], path: StorePath) -> StoreSpec:
    if SPEC_ATTRIBUTE not in attributes:
        raise StoreNotFound(
            f"{path} is a Zarr hierarchy, but not a store of FocalCache: it has no"
            f" attribute {SPEC_ATTRIBUTE!r}"
        )
    raw = attributes[SPEC_ATTRIBUTE]
    if _checksum(raw) != attributes.get(SPEC_CHECKSUM_ATTRIBUTE):
        raise Corrupt(f"the spec in {path / METADATA_NAME} does not match its checksum")
    try:
        return read_spec(raw, str(path))
    except SpecInvalid as error:
        raise Corrupt(f"{path / METADATA_NAME}: {error}") from None


def _plan(attributes: dict[str, Any], path: StorePath) -> StorePlan | None:
    if PLAN_ATTRIBUTE not in attributes:
        return None
    raw = attributes[PLAN_ATTRIBUTE]
    if _checksum(raw) != attributes.get(PLAN_CHECKSUM_ATTRIBUTE):
        raise Corrupt(f"the plan in {path / METADATA_NAME} does not match its checksum")
    try:
        return StorePlan.from_dict(raw)
    except SpecInvalid as error:
        raise Corrupt(f"{path / METADATA_NAME}: {error}") from None


def published_scenes(path: StorePath, plan: StorePlan | None) -> list[str]:
    """Names of the scenes that have a manifest, sorted; of a planned store each planned one is asked for."""
    scenes = path / SCENES_GROUP
    found = plan.n_samples if plan is not None else _scene_names(names_in(scenes))
    there = each_read(path, lambda name: is_there(scenes / name / MANIFEST_NAME), found)
    return [name for name, is_published in zip(found, there, strict=True) if is_published]


def _scene_names(found: list[str]) -> list[str]:
    """Of names in a folder those that a scene may have."""
    valid = []
    for name in found:
        with contextlib.suppress(Unfit):
            valid.append(names.scene_name(name))
    return valid


def _checksum(raw: Any) -> str | None:
    try:
        return crc32c(canonical_json(raw))
    except ValueError:
        return None  # 1e-05 that became 1e905: JSON reads infinity there, and nobody wrote that


def _root_document(path: StorePath) -> bytes:
    try:
        return read_document(path / METADATA_NAME)
    except FileNotFoundError:
        raise StoreNotFound(
            f"no store at {path}: there is no {METADATA_NAME}.\n"
            f"Make one with extract/dump_teacher.py --out {path}"
        ) from None


def _attributes(data: bytes, path: StorePath) -> dict[str, Any]:
    document = parse_json(data, path / METADATA_NAME)
    attributes = document.get("attributes") if isinstance(document, dict) else None
    return attributes if isinstance(attributes, dict) else {}
