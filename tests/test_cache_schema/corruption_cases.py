"""Flip single bytes in the files of a store, one at a time, and see who notices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from store_cases import about, sample_list, small_spec, write_scene

from cache_schema.errors import CacheError
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.spec import ArraySpec, FocalFacts, StoreSpec
from cache_schema.storage import StorePath
from cache_schema.writer import StoreWriter

DETECTED, REFUSED, HARMLESS, MISSED = (
    "detected by verify",
    "refused at open",
    "changes nothing read",
    "MISSED",
)


HEAD = {
    "decoder.weight": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
    "decoder.bias": np.zeros(4, np.float32),
}


def sealed_store(path: Path, scenes: dict[str, int], spec: StoreSpec | None = None) -> Path:
    """A finished store with a teacher head and scenes of so many samples each."""
    spec = spec or small_spec()
    writer = StoreWriter.create(path, spec, planned=scenes)
    writer.write_teacher_head(HEAD)
    for name, n_samples in scenes.items():
        write_scene(writer, name, n_samples, spec.arrays)
    writer.seal()
    return path


def profile_spec(profile: str) -> StoreSpec:
    """Two cameras, three channels, five queries, in a profile."""
    arrays = (
        ("pv_feats_0", "float16", (2, 3, 4, 5), ("camera", "channel", "pv_0_y", "pv_0_x"), False),
        ("bev_feats", "float16", (3, 6, 7), ("channel", "bev_y", "bev_x"), False),
        ("query_logits", "float16", (2, 5, 2), ("layer", "query", "class"), True),
        ("query_boxes", "float32", (2, 5, 10), ("layer", "query", "box_code"), True),
        ("can_bus", "float64", (18,), ("can_bus_number",), True),
    )
    small = small_spec()
    range_m = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
    return replace(
        small,
        teacher=replace(small.teacher, config={"point_cloud_range": range_m, "eps": 1e-5}),
        profile=profile,
        focal=FocalFacts(min_score=0.3, background_block=2, areas={}) if profile == "focal" else None,
        arrays=tuple(
            ArraySpec(
                name=name,
                **about(name),
                dtype=dtype,
                shape=shape,
                dimension_names=names,
                compressed=compressed,
            )
            for name, dtype, shape, names, compressed in arrays
        ),
    )


def profile_store(path: Path, profile: str, scenes: dict[str, int], seed: int = 0) -> Path:
    """A finished store; equal scenes and seeds give the same teacher's values in every profile."""
    spec = profile_spec(profile)
    writer = StoreWriter.create(path, spec, planned=scenes)
    writer.write_teacher_head(HEAD)
    fill_profile_store(writer, profile, scenes, seed)
    writer.seal()
    return path


def fill_profile_store(writer: StoreWriter, profile: str, scenes: dict[str, int], seed: int) -> None:
    """Write scenes of such a store."""
    spec = profile_spec(profile)
    for scene, n_samples in scenes.items():
        samples = sample_list(scene, n_samples)
        with writer.scene(scene, f"{scene}-scene-token", samples) as open_scene:
            for token, _ in samples:
                rng = np.random.default_rng([seed, *token.encode()])
                values = {a.name: rng.normal(size=a.shape).astype(a.dtype) for a in spec.arrays}
                kept = {}
                if profile == "focal":
                    areas = {"pv_feats_0": rng.random((2, 4, 5)) < 0.3, "bev_feats": rng.random((6, 7)) < 0.3}
                    kept = {"areas": areas, "confident": rng.random(5) < 0.6}
                open_scene.append(token, values, **kept)


@dataclass(frozen=True)
class Flip:
    """One byte of one file, and what it becomes when it is xor-ed with `mask` (1 to 255)."""

    path: Path
    offset: int
    mask: int


def random_flips(store: Path, n_flips: int, seed: int) -> list[Flip]:
    """Flips over all files: every file as likely as another, so that small ones are hit too."""
    rng = np.random.default_rng(seed)
    files = sorted(path for path in store.rglob("*") if path.is_file())
    flips = []
    for number in range(n_flips):
        # Each file once before any of them again.
        if number % len(files) == 0:
            order = rng.permutation(len(files))
        path = files[order[number % len(files)]]
        flips.append(Flip(path, int(rng.integers(path.stat().st_size)), int(rng.integers(1, 256))))
    return flips


def outcomes(store: Path, flips: list[Flip]) -> Iterator[tuple[Flip, str]]:
    """Each flip with what came of it; the store is whole again afterwards."""
    intact = everything(store, verify_checksums=False)
    for flip in flips:
        whole = flip.path.read_bytes()
        damaged = bytearray(whole)
        damaged[flip.offset] ^= flip.mask
        flip.path.write_bytes(damaged)
        try:
            yield flip, _outcome(store, intact)
        finally:
            flip.path.write_bytes(whole)


def _outcome(store: Path, intact: dict[str, bytes]) -> str:
    try:
        if verify(store).faults:
            return DETECTED
    except CacheError:
        return REFUSED
    return HARMLESS if everything(store, verify_checksums=False) == intact else MISSED


def everything(store: StorePath, **options: object) -> dict[str, bytes]:
    """All that a reader with these options gives out of a store. Raises CacheError."""
    reader = TargetReader(store, **options)
    found = {
        f"{token}/{name}": values.tobytes()
        for token in reader.sample_tokens
        for name, values in reader[token].items()
    }
    found |= {name: values.tobytes() for name, values in reader.read_teacher_head().items()}
    return found | {"spec": repr(reader.spec).encode(), "scenes": repr(reader.scenes).encode()}


def file_kind(store: Path, path: Path) -> str:
    """What a file is, for a table."""
    parts = path.relative_to(store).parts
    if len(parts) == 1:
        return {"zarr.json": "root zarr.json", "sealed.json": "seal"}.get(path.name, path.name)
    if parts == ("scenes", "zarr.json"):
        return "scenes/zarr.json"
    owner = "teacher head" if parts[0] == "teacher_head" else "scene"
    kind = {"zarr.json": "zarr.json", "manifest.json": "manifest"}.get(path.name, "data")
    return f"{owner}: {kind}"
