"""Read a whole store against what was recorded about it, and say everything that is wrong.

A scene or the teacher head is one part: it was published whole, and a repair takes it away whole. The names
and sizes of a part's files follow from its manifest, and every byte in them is under a checksum. The root and
the seal bear their own.
"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import get_context

from cache_schema import fingerprint
from cache_schema.errors import CacheError, Corrupt, StoreNotFound
from cache_schema.files import STAGING_PREFIX
from cache_schema.inspection.faults import Fault, Findings
from cache_schema.inspection.info import left_behind
from cache_schema.inspection.part_files import (
    Shard,
    check_head_files,
    check_scene_files,
    check_shard,
    shards_of,
    unreadable,
)
from cache_schema.manifest import MANIFEST_NAME, HeadManifest, SceneManifest, read_manifest
from cache_schema.seal import SEAL_NAME, make_seal, read_seal
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath, names_in
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import (
    PLAN_ATTRIBUTE,
    PLAN_CHECKSUM_ATTRIBUTE,
    SCENES_GROUP,
    SPEC_ATTRIBUTE,
    SPEC_CHECKSUM_ATTRIBUTE,
    published_scenes,
    read_plan,
    read_root,
)
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.zarr_metadata import METADATA_NAME, group_document

_SHARDS_AHEAD = 4  # for each process: enough to keep it busy
_ROOT_ATTRIBUTES = (SPEC_ATTRIBUTE, SPEC_CHECKSUM_ATTRIBUTE, PLAN_ATTRIBUTE, PLAN_CHECKSUM_ATTRIBUTE)


def verify(
    store: StorePath, jobs: int = 1, on_bytes: Callable[[int, int], None] = lambda done, total: None
) -> Findings:
    """Test every file of a store.

    Args:
        jobs: processes that read.
        on_bytes: told after each shard how many bytes of how many are done.

    Raises StoreNotFound and SchemaTooNew. Damage of any kind is a fault in the result.
    """
    findings = Findings()
    spec, plan = _check_root(store, findings)
    if isinstance(store, S3Path) and not (store / SEAL_NAME).exists():
        findings.left_behind += left_behind(store, published_scenes(store))
    shards: list[Shard] = []
    tokens: dict[str, str] = {}
    for name in names_in(store / SCENES_GROUP):
        if name != METADATA_NAME and f"{SCENES_GROUP}/{name}" not in findings.left_behind:
            shards += _check_scene(store, name, spec, tokens, findings)
    _check_head(store, spec, findings)
    if plan is not None:
        _check_plan(store, plan, findings)
    _check_seal(store, plan, findings)
    total = sum(shard.nbytes for shard in shards)
    done = 0
    for shard, faults in _checked_shards(store, shards, jobs):
        findings.faults += faults
        done += shard.nbytes
        on_bytes(done, total)
    findings.n_bytes += done
    findings.faults.sort()
    return findings


def _check_root(store: StorePath, findings: Findings) -> tuple[StoreSpec | None, StorePlan | None]:
    spec = plan = None
    try:
        spec = read_root(store)
        plan = read_plan(store)
        data = (store / METADATA_NAME).read_bytes()
        attributes = json.loads(data)["attributes"]
        expected = group_document({name: attributes[name] for name in _ROOT_ATTRIBUTES if name in attributes})
        if data != expected:
            findings.add("", METADATA_NAME, "is not what a dump writes")
    except Corrupt as error:
        findings.add("", METADATA_NAME, error)
    findings.planned = plan is not None
    try:
        if (store / SCENES_GROUP / METADATA_NAME).read_bytes() != group_document({}):
            findings.add("", f"{SCENES_GROUP}/{METADATA_NAME}", "is not what a dump writes")
    except OSError as error:
        findings.faults.append(unreadable("", f"{SCENES_GROUP}/{METADATA_NAME}", error))
    for name in names_in(store):
        if name.startswith(STAGING_PREFIX):
            findings.left_behind.append(name)
        elif name not in (METADATA_NAME, SCENES_GROUP, HEAD_GROUP, SEAL_NAME):
            findings.add("", name, "does not belong there", damage=False)
    return spec, plan


def _check_scene(
    store: StorePath, name: str, spec: StoreSpec | None, tokens: dict[str, str], findings: Findings
) -> list[Shard]:
    """Everything but the shards, which are returned; `tokens` says which scene has a sample."""
    part = f"{SCENES_GROUP}/{name}"
    path = f"{part}/{MANIFEST_NAME}"
    if not (store / part).is_dir():
        findings.add("", part, "does not belong there", damage=False)
        return []
    manifest = _manifest(store, part, SceneManifest, findings)
    if manifest is None:
        return []
    findings.scenes += 1
    findings.samples += len(manifest.sample_tokens)
    if manifest.scene_name != name:
        findings.add(part, path, f"is the manifest of scene {manifest.scene_name}")
    if spec is not None and tuple(record.array for record in manifest.arrays) != spec.stored_arrays:
        findings.add(part, path, "has other arrays than the store's spec says")
    for token in manifest.sample_tokens:
        if token in tokens:
            findings.add(part, path, f"has sample {token}, which scene {tokens[token]} has too")
        tokens.setdefault(token, name)
    _check_fingerprint(manifest, part, spec, findings)
    check_scene_files(store, part, manifest, findings)
    return shards_of(part, manifest)


def _check_head(store: StorePath, spec: StoreSpec | None, findings: Findings) -> None:
    if not ((store / HEAD_GROUP).exists() or (store / HEAD_GROUP).is_dir()):
        return
    manifest = _manifest(store, HEAD_GROUP, HeadManifest, findings)
    if manifest is not None:
        findings.has_head = True
        _check_fingerprint(manifest, HEAD_GROUP, spec, findings)
        findings.n_bytes += check_head_files(store, HEAD_GROUP, manifest, findings)


def _check_fingerprint(
    manifest: SceneManifest | HeadManifest, part: str, spec: StoreSpec | None, findings: Findings
) -> None:
    if spec is not None and manifest.fingerprint != fingerprint.digest(spec):
        findings.add(part, f"{part}/{MANIFEST_NAME}", "was written under another spec than the store's")


def _manifest(
    store: StorePath, part: str, kind: type[SceneManifest] | type[HeadManifest], findings: Findings
) -> SceneManifest | HeadManifest | None:
    try:
        return read_manifest(store / part, kind)
    except Corrupt as error:
        findings.add(part, f"{part}/{MANIFEST_NAME}", error)
    except OSError as error:
        findings.faults.append(unreadable(part, f"{part}/{MANIFEST_NAME}", error))
    return None


def _check_plan(store: StorePath, plan: StorePlan, findings: Findings) -> None:
    """Scenes that were never planned are faults; planned ones that are not there yet are not."""
    there = set(names_in(store / SCENES_GROUP)) - {METADATA_NAME}
    there -= {name.removeprefix(f"{SCENES_GROUP}/") for name in findings.left_behind}
    findings.missing_scenes = [name for name in plan.n_samples if name not in there]
    for name in sorted(there - set(plan.n_samples)):
        if (store / SCENES_GROUP / name).is_dir():
            findings.add("", f"{SCENES_GROUP}/{name}", "is no scene of the store's plan", damage=False)


def _check_seal(store: StorePath, plan: StorePlan | None, findings: Findings) -> None:
    """A seal says that all is there, and which bytes: it must say so of what is there now."""
    try:
        seal = read_seal(store)
        findings.sealed = True
        if any(fault.path == METADATA_NAME for fault in findings.faults):
            return  # the root is at fault, not the seal
        if plan is None:
            findings.add("", SEAL_NAME, "seals a store that has no plan")
        elif seal != make_seal(store, plan):
            findings.add("", SEAL_NAME, "was made for other contents than the store has")
    except StoreNotFound:
        return
    except (CacheError, OSError) as error:
        findings.sealed = True
        findings.add("", SEAL_NAME, f"cannot be confirmed: {error}")


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
                yield running.pop(future), future.result()
