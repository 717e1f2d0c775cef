"""What a store is: its spec in short, its scenes, and the bytes of its arrays."""

import math
from collections.abc import Collection
from typing import Any

from cache_schema.contents import StoreContents
from cache_schema.errors import CacheError, StoreNotFound
from cache_schema.files import STAGING_PREFIX
from cache_schema.inspection.tables import aligned, bytes_text, shape_text
from cache_schema.layers import LAYERS_GROUP, layer_names, layer_path, require_real
from cache_schema.manifest import MANIFEST_NAME
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath, names_in
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import SCENES_GROUP
from cache_schema.teacher_head import HEAD_GROUP
from cache_schema.wording import counted


def describe(path: StorePath) -> dict[str, Any]:
    """Facts about a store, ready for JSON. Reads its records and none of its data.

    Raises StoreNotFound, SchemaTooNew, or Corrupt when a record is damaged.
    """
    contents = StoreContents(path)
    spec, plan = contents.spec, contents.plan
    on_disk = {array.name: 0 for array in spec.stored_arrays}
    scenes = {}
    for scene in contents.scenes():
        scenes[scene.name] = len(scene.sample_tokens)
        for record in scene.manifest().arrays:
            on_disk[record.array.name] = on_disk.get(record.array.name, 0) + sum(record.shard_nbytes)
    n_samples, remote = sum(scenes.values()), isinstance(path, S3Path)
    return {
        "schema_version": spec.schema_version,
        "profile": spec.profile,
        "teacher": _teacher(spec),
        "dataset": spec.dataset.to_dict(),
        "numerics": spec.numerics.to_dict(),
        "inputs": {
            "camera_order": list(spec.inputs.camera_order),
            "image_shape": list(spec.inputs.image_shape),
            "present": dict(spec.inputs.present),
        },
        "class_names": list(spec.outputs.class_names),
        "scenes": scenes,
        "samples": n_samples,
        "sealed": contents.seal is not None,
        "digest": contents.digest,
        "missing_scenes": None if plan is None else [name for name in plan.n_samples if name not in scenes],
        # Of a sealed store nothing is: a bucket need not be listed for it.
        "left_behind": [] if contents.seal is not None and remote else left_behind(path, scenes, plan),
        "arrays": [
            array.to_dict()
            | {
                "bytes_per_sample": array.bytes_per_sample,
                "raw_bytes": array.bytes_per_sample * n_samples,
                "disk_bytes": on_disk[array.name],
            }
            for array in spec.stored_arrays
        ],
        "teacher_head": _head(contents),
        "layers": [] if spec.layer is not None else _layers(path, contents.digest),
        "layer_of": None if spec.layer is None else spec.layer.store_digest,
    }


def left_behind(path: StorePath, published: Collection[str], plan: StorePlan | None) -> list[str]:
    """Parts that are being written, or whose writer was killed.

    In an object store those are planned scenes, and a head, without a manifest; the next dump writes over
    them.
    """
    if isinstance(path, S3Path):
        planned = () if plan is None else plan.n_samples
        names = names_in(path / SCENES_GROUP)
        parts = [f"{SCENES_GROUP}/{name}" for name in names if name in planned and name not in published]
        head = path / HEAD_GROUP
        return [*parts, HEAD_GROUP] if head.is_dir() and not (head / MANIFEST_NAME).exists() else parts
    return [name for name in names_in(path) if name.startswith(STAGING_PREFIX)]


def _teacher(spec: StoreSpec) -> dict[str, Any]:
    teacher = spec.teacher
    return {
        "detector": teacher.detector,
        "regime": teacher.regime,
        "trained": teacher.trained,
        "checkpoint_sha256": teacher.checkpoint_sha256,
        "random_seed": teacher.random_seed,
    }


def _head(contents: StoreContents) -> dict[str, int] | None:
    try:
        manifest = contents.head_manifest()
    except StoreNotFound:
        return None
    return {
        "parameters": len(manifest.parameters),
        "raw_bytes": sum(4 * math.prod(record.shape) for record in manifest.parameters),
    }


def _layers(path: StorePath, digest: str | None) -> list[dict[str, Any]]:
    """What each layer is; of one whose records are damaged, what is wrong with them."""
    found = []
    try:
        names = layer_names(path)
    except CacheError as error:
        return [{"name": LAYERS_GROUP, "fault": str(error).splitlines()[0]}]
    for name in names:
        try:
            require_real(path, LAYERS_GROUP, name)
            facts = describe(layer_path(path, name))
        except CacheError as error:
            found.append({"name": name, "fault": str(error).splitlines()[0]})
            continue
        kept = ("sealed", "digest", "samples", "missing_scenes", "layer_of")
        found.append(
            {"name": name, "fault": None, **{key: facts[key] for key in kept}}
            | {
                "head": facts["teacher"]["detector"],
                "of_this_store": facts["layer_of"] == digest,
                "arrays": [array["name"] for array in facts["arrays"]],
                "disk_bytes": sum(array["disk_bytes"] for array in facts["arrays"]),
            }
        )
    return found


def _layer_text(layer: dict[str, Any]) -> str:
    if layer["fault"] is not None:
        return layer["fault"]
    state = f"digest {layer['digest'][:12]}" if layer["sealed"] else "not finished"
    other = "" if layer["of_this_store"] else "; A LAYER OF ANOTHER STORE"
    size = f"{counted(layer['samples'], 'sample')}, {bytes_text(layer['disk_bytes'])}"
    return f"{layer['head']}, {size}, {state}{other}"


def as_text(facts: dict[str, Any], path: StorePath) -> str:
    """`describe` for people."""
    teacher, dataset = facts["teacher"], facts["dataset"]
    if teacher["trained"]:
        weights = f"trained, checkpoint sha256 {teacher['checkpoint_sha256']}"
    else:
        weights = f"UNTRAINED, random weights of seed {teacher['random_seed']}"
    head = facts["teacher_head"]
    left_behind, missing = facts["left_behind"], facts["missing_scenes"]
    if facts["sealed"]:
        state = "sealed: finished"
    elif missing is None:
        state = "not sealed; no plan says which scenes belong to it"
    else:
        state = f"not sealed; {counted(len(missing), 'planned scene')} not there yet"
    height, width = facts["inputs"]["image_shape"]
    present = "".join(
        f", {'with' if there else 'without'} {name}" for name, there in facts["inputs"]["present"].items()
    )
    about = [
        ("store", str(path)),
        ("profile", f"{facts['profile']}, schema_version {facts['schema_version']}"),
        ("teacher", f"{teacher['detector']}, {weights}"),
        ("regime", teacher["regime"]),
        (
            "teacher head",
            f"{head['parameters']} parameters, {bytes_text(head['raw_bytes'])}" if head else "none",
        ),
        ("dataset", f"{dataset['name']} {dataset['version']}, split {dataset['split']}"),
        ("inputs", f"{len(facts['inputs']['camera_order'])} cameras, {height} × {width} pixels{present}"),
        ("classes", ", ".join(facts["class_names"])),
        ("numerics", ", ".join(f"{name} {value}" for name, value in facts["numerics"].items())),
        ("samples", f"{facts['samples']:,} in {counted(len(facts['scenes']), 'published scene')}"),
        ("state", state),
        ("digest", facts["digest"] or "none before it is sealed"),
        ("left behind", f"{len(left_behind)} unpublished parts" if left_behind else "nothing"),
    ]
    if facts["layer_of"]:
        about.append(("layer of", f"the store with digest {facts['layer_of']}"))
    about += [(f"layer {layer['name']}", _layer_text(layer)) for layer in facts["layers"]]
    rows = [("array", "dtype", "shape of a sample", "bytes/sample", "raw", "on disk")]
    for array in facts["arrays"]:
        rows.append(
            (
                array["name"],
                array["dtype"],
                shape_text(array["shape"]),
                f"{array['bytes_per_sample']:,}",
                bytes_text(array["raw_bytes"]),
                bytes_text(array["disk_bytes"]),
            )
        )
    totals = {
        key: sum(a[key] for a in facts["arrays"]) for key in ("bytes_per_sample", "raw_bytes", "disk_bytes")
    }
    rows.append(
        (
            "all",
            "",
            "",
            f"{totals['bytes_per_sample']:,}",
            bytes_text(totals["raw_bytes"]),
            bytes_text(totals["disk_bytes"]),
        )
    )
    return "\n".join([*aligned(about), "", *aligned(rows, right=(3, 4, 5))])
