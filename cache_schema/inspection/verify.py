"""Read a whole store against what was recorded about it, and say everything that is wrong.

A scene or the teacher head is one part: it was published whole, and a repair takes it away whole. The names
and sizes of a part's files follow from its manifest, and every byte in them is under a checksum. The root and
the seal bear their own.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from cache_schema import fingerprint
from cache_schema.contents import require_own_seal
from cache_schema.documents import MAX_NBYTES, parse_json, read_document
from cache_schema.errors import CacheError, Corrupt, FingerprintMismatch, NotOurs, StoreNotFound, Unreadable
from cache_schema.files import STAGING_PREFIX
from cache_schema.folders import ASIDE_PREFIX
from cache_schema.inspection.faults import Fault, Findings
from cache_schema.inspection.info import left_behind
from cache_schema.inspection.part_files import (
    Shard,
    check_head_files,
    check_scene_files,
    check_shard,
    read_part,
    shards_of,
    without_path,
)
from cache_schema.layers import LAYERS_GROUP, layer_names, layer_path, require_parent
from cache_schema.manifest import MANIFEST_NAME, HeadManifest, SceneManifest, unpack_manifest
from cache_schema.seal import SEAL_NAME, Seal, read_seal, sealed_index
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath, names_in
from cache_schema.store_index import INDEX_NAME, StoreIndex
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import (
    PLAN_ATTRIBUTE,
    PLAN_CHECKSUM_ATTRIBUTE,
    SCENES_GROUP,
    SPEC_ATTRIBUTE,
    SPEC_CHECKSUM_ATTRIBUTE,
    Root,
    open_root,
    published_scenes,
)
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.zarr_metadata import METADATA_NAME, group_document

_STRANGER = "does not belong there"
_SHARDS_AHEAD = 4  # for each process: enough to keep it busy
_ROOT_ATTRIBUTES = (SPEC_ATTRIBUTE, SPEC_CHECKSUM_ATTRIBUTE, PLAN_ATTRIBUTE, PLAN_CHECKSUM_ATTRIBUTE)


def verify(
    store: StorePath, jobs: int = 1, on_bytes: Callable[[int, int], None] = lambda done, total: None
) -> Findings:
    """Test every file of a store.

    Args:
        jobs: processes that read.
        on_bytes: told after each shard how many bytes of how many are done.

    Its layers are tested like stores, each with findings of its own.

    Raises StoreNotFound and SchemaTooNew. Damage of any kind is a fault in the result.
    """
    findings = Findings()
    said = _check_root(store, findings)
    if isinstance(store, S3Path) and said.seal is None:
        findings.left_behind += left_behind(store, published_scenes(store, said.plan), said.plan)
    listed = [name for name in names_in(store / SCENES_GROUP) if name != METADATA_NAME]
    shards: list[Shard] = []
    tokens: dict[str, str] = {}
    for name in listed if said.n_samples is None else said.n_samples:
        shards += _check_scene(store, name, said, tokens, findings)
    for name in listed:
        if said.n_samples is not None and name not in said.n_samples:
            what = (
                "is not a scene of the store's plan" if (store / SCENES_GROUP / name).is_dir() else _STRANGER
            )
            findings.add("", f"{SCENES_GROUP}/{name}", what, damage=False)
    _check_head(store, said, findings)
    total = sum(shard.nbytes for shard in shards)
    done = 0
    for shard, faults in _checked_shards(store, shards, jobs):
        findings.faults += faults
        done += shard.nbytes
        on_bytes(done, total)
    findings.n_bytes += done
    for name in _check_layers(store, said, findings):
        layer = layer_path(store, name)
        found = verify(layer, jobs, lambda more, of, so_far=total: on_bytes(so_far + more, so_far + of))
        total += found.n_bytes
        _check_parent(layer, findings, found)
        findings.layers[name] = found
    findings.faults.sort()
    return findings


@dataclass(frozen=True)
class _Said:
    """What the store says about itself, as far as it can be believed."""

    spec: StoreSpec | None
    plan: StorePlan | None
    seal: Seal | None
    index: StoreIndex | None  # of the seal

    @property
    def n_samples(self) -> dict[str, int] | None:
        """Samples of the scenes that it must have; None when nobody knows."""
        if self.plan is not None:
            return self.plan.n_samples
        return None if self.index is None else _n_samples(self.index)


def _check_layers(store: StorePath, said: "_Said", findings: Findings) -> list[str]:
    """The group of the layers, and the names of those that can be looked at: none of them is a link."""
    if LAYERS_GROUP not in names_in(store) or (said.spec is not None and said.spec.layer is not None):
        return []
    try:
        found = layer_names(store)
    except NotOurs:
        findings.add("", LAYERS_GROUP, "is a link, or no folder, which no dump makes", damage=False)
        return []
    path = f"{LAYERS_GROUP}/{METADATA_NAME}"
    if read_part(store, "", path, MAX_NBYTES, findings) not in (None, group_document({})):
        findings.add("", path, "is not what a dump writes")
    real = []
    for name in names_in(store / LAYERS_GROUP):
        part = f"{LAYERS_GROUP}/{name}"
        if name.startswith(STAGING_PREFIX):
            findings.left_behind.append(part)
        elif isinstance(store, Path) and (store / part).is_symlink():
            findings.add("", part, "is a link, which no dump makes", damage=False)
        elif name in found:
            real.append(name)
        elif name != METADATA_NAME:
            findings.add("", part, "is no layer", damage=False)
    return real


def _check_parent(layer: StorePath, store: Findings, found: Findings) -> None:
    """Whether a layer is one of this store. Nobody knows of a store whose seal cannot be read."""
    if store.digest is None:
        return
    with contextlib.suppress(Corrupt):
        try:
            require_parent(open_root(layer).spec, store.digest, layer)
        except FingerprintMismatch as error:
            (problem,) = error.problems
            found.add("", METADATA_NAME, f"is a layer of another store: {problem.got}", damage=False)


def _check_root(store: StorePath, findings: Findings) -> _Said:
    root, plan = None, None
    try:
        opened = open_root(store)
        root, plan = opened, opened.plan  # both or neither
        data = read_document(store / METADATA_NAME)
        attributes = parse_json(data, store / METADATA_NAME)["attributes"]
        expected = group_document({name: attributes[name] for name in _ROOT_ATTRIBUTES if name in attributes})
        if data != expected:
            findings.add("", METADATA_NAME, "is not what a dump writes")
    except Corrupt as error:
        findings.add("", METADATA_NAME, without_path(error, store / METADATA_NAME))
    spec = None if root is None else root.spec
    findings.planned = plan is not None
    if isinstance(store, Path) and (store / SCENES_GROUP).is_symlink():
        findings.add("", SCENES_GROUP, "is a link, which no dump makes", damage=False)
    path = f"{SCENES_GROUP}/{METADATA_NAME}"
    if read_part(store, "", path, MAX_NBYTES, findings) not in (None, group_document({})):
        findings.add("", path, "is not what a dump writes")
    for name in names_in(store):
        if name.startswith(STAGING_PREFIX):
            findings.left_behind.append(name)
        elif name.startswith(ASIDE_PREFIX):
            findings.aside.append(name)
        elif name not in _known_names(spec):
            findings.add("", name, _STRANGER, damage=False)
    seal = _check_seal(store, root, findings)
    return _Said(spec, plan, seal, None if seal is None else _check_index(store, seal, plan, findings))


def _known_names(spec: StoreSpec | None) -> set[str]:
    """What may lie in the root; a layer has no layers."""
    known = {METADATA_NAME, SCENES_GROUP, HEAD_GROUP, SEAL_NAME, INDEX_NAME}
    return known | ({LAYERS_GROUP} if spec is None or spec.layer is None else set())


def _check_scene(
    store: StorePath, name: str, said: _Said, tokens: dict[str, str], findings: Findings
) -> list[Shard]:
    """Everything but the shards, which are returned; `tokens` says which scene has a sample."""
    part = f"{SCENES_GROUP}/{name}"
    path = f"{part}/{MANIFEST_NAME}"
    if part in findings.left_behind or not _is_there(store, part):
        findings.missing_scenes.append(name)
        if said.seal is not None:
            findings.add(part, part, "is gone")
        return []
    known = said.n_samples is not None
    if isinstance(store, Path) and not (store / part).is_dir():
        findings.add(part if known else "", part, "is not a folder" if known else _STRANGER, damage=known)
        return []
    if isinstance(store, Path) and (store / part).is_symlink():
        findings.add("", part, "is a link, which no dump makes", damage=False)
    sealed = None if said.index is None else said.index.manifest_sha256(name)
    manifest = _manifest(store, part, SceneManifest, sealed, findings)
    if manifest is None:
        return []
    findings.scenes += 1
    findings.samples += len(manifest.sample_tokens)
    if manifest.scene_name != name:
        findings.add(part, path, f"is the manifest of scene {manifest.scene_name}")
    if known and said.n_samples[name] != len(manifest.sample_tokens):
        findings.add(
            part, path, f"has {len(manifest.sample_tokens)} samples, {said.n_samples[name]} are planned"
        )
    if said.spec is not None and tuple(r.array for r in manifest.arrays) != said.spec.stored_arrays:
        findings.add(part, path, "has other arrays than the store's spec says")
    for token in manifest.sample_tokens:
        if token in tokens:
            findings.add(part, path, f"has sample {token}, which scene {tokens[token]} has too")
        tokens.setdefault(token, name)
    if sealed is not None and said.index.tokens_of(said.index.scene_number(name)) != manifest.sample_tokens:
        findings.add("", INDEX_NAME, f"has other samples of scene {name} than its manifest")
    _check_fingerprint(manifest, part, said.spec, findings)
    check_scene_files(store, part, manifest, findings)
    return shards_of(part, manifest)


def _check_head(store: StorePath, said: _Said, findings: Findings) -> None:
    sealed = None if said.seal is None else said.seal.teacher_head_sha256
    if HEAD_GROUP in findings.left_behind:
        return
    if not _is_there(store, HEAD_GROUP):
        if sealed is not None:
            findings.add(HEAD_GROUP, HEAD_GROUP, "is gone")
        return
    if said.seal is not None and sealed is None:
        findings.add("", HEAD_GROUP, "is not in the seal", damage=False)
    manifest = _manifest(store, HEAD_GROUP, HeadManifest, sealed, findings)
    if manifest is not None:
        findings.has_head = True
        _check_fingerprint(manifest, HEAD_GROUP, said.spec, findings)
        findings.n_bytes += check_head_files(store, HEAD_GROUP, manifest, findings)


def _check_fingerprint(
    manifest: SceneManifest | HeadManifest, part: str, spec: StoreSpec | None, findings: Findings
) -> None:
    if spec is not None and manifest.fingerprint != fingerprint.digest(spec):
        findings.add(part, f"{part}/{MANIFEST_NAME}", "was written under another spec than the store's")


def _manifest(
    store: StorePath,
    part: str,
    kind: type[SceneManifest] | type[HeadManifest],
    sealed: str | None,
    findings: Findings,
) -> SceneManifest | HeadManifest | None:
    """The manifest of a part; `sealed` is the SHA-256 that it has to have, None when nobody knows."""
    path = f"{part}/{MANIFEST_NAME}"
    data = read_part(store, part, path, MAX_NBYTES, findings)
    if data is None:
        return None
    if sealed not in (None, hashlib.sha256(data).hexdigest()):
        findings.add(part, path, "is not the one that was sealed")
    try:
        return unpack_manifest(data, store / path, kind)
    except Corrupt as error:
        findings.add(part, path, without_path(error, store / path))
    return None


def _check_seal(store: StorePath, root: Root | None, findings: Findings) -> Seal | None:
    """The seal, if it is one of this store: it says that all is there, and which bytes."""
    try:
        seal = read_seal(store)
    except StoreNotFound:
        return None
    except (Corrupt, Unreadable) as error:
        findings.sealed = True
        findings.add("", SEAL_NAME, without_path(error, store / SEAL_NAME))
        return None
    findings.sealed = True
    findings.digest = seal.digest
    if root is None or any(fault.path == METADATA_NAME for fault in findings.faults):
        return seal  # the root is at fault, not the seal
    try:
        require_own_seal(seal, store, root)
    except Corrupt as error:
        findings.add("", SEAL_NAME, without_path(error, store / SEAL_NAME))
        return None
    return seal


def _check_index(
    store: StorePath, seal: Seal, plan: StorePlan | None, findings: Findings
) -> StoreIndex | None:
    """The index, if it is the one that was sealed, and one by which every sample is found."""
    try:
        index = sealed_index(store, seal)
    except (Corrupt, Unreadable) as error:
        findings.add("", INDEX_NAME, without_path(error, store / INDEX_NAME))
        return None
    if plan is not None and _n_samples(index) != plan.n_samples:
        findings.add("", INDEX_NAME, "has other scenes than the store's plan")
    if (wrong := index.unsorted_token()) is not None:
        findings.add("", INDEX_NAME, f"does not find sample {wrong[0]}")
    return index


def _n_samples(index: StoreIndex) -> dict[str, int]:
    return {index.scene_name(number): len(index.tokens_of(number)) for number in range(index.n_scenes)}


def _is_there(store: StorePath, part: str) -> bool:
    """Whether anything bears the name of a part."""
    place = store / part
    return os.path.lexists(place) if isinstance(place, Path) else place.is_dir()


def _checked_shards(store: StorePath, shards: list[Shard], jobs: int) -> Iterator[tuple[Shard, list[Fault]]]:
    if jobs == 1:
        for shard in shards:
            yield shard, check_shard(store, shard)
        return
    waiting = iter(shards)
    # Spawned: the caller may have threads, and a forked child of threads can hang.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {}
        while True:
            while len(running) < jobs * _SHARDS_AHEAD and (shard := next(waiting, None)) is not None:
                running[pool.submit(check_shard, store, shard)] = shard
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                try:
                    yield running.pop(future), future.result()
                except BrokenProcessPool:
                    raise CacheError(
                        f"a process that read {store} was killed: there may be too little memory."
                        "\nUse fewer --jobs."
                    ) from None
