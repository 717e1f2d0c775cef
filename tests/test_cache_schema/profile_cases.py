"""A small teacher with image maps, a BEV map and queries, stored in each profile."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from store_cases import about, sample_list, sample_values, small_spec

from cache_schema.spec import ArraySpec, FocalFacts, StoreSpec
from cache_schema.writer import StoreWriter


def array(name, dtype, shape, dimension_names, compressed=False):
    return ArraySpec(
        name=name,
        **about(name),
        dtype=dtype,
        shape=shape,
        dimension_names=dimension_names,
        compressed=compressed,
    )


TEACHER_ARRAYS = (
    array("pv_feats_0", "float16", (2, 3, 5, 7), ("camera", "channel", "pv_y", "pv_x")),
    array("bev_feats", "float16", (3, 9, 8), ("channel", "bev_y", "bev_x")),
    array("query_logits", "float16", (2, 6, 4), ("layer", "query", "class"), compressed=True),
    array("focal_feats", "float16", (2, 6, 3), ("layer", "query", "channel"), compressed=True),
    array("can_bus", "float64", (18,), ("can_bus_number",), compressed=True),
)
FOCAL = FocalFacts(min_score=0.2, background_block=4, areas={"margin_m": 1.0})


def profile_spec(profile: str, arrays=TEACHER_ARRAYS) -> StoreSpec:
    """The spec of the small teacher's store."""
    focal = FOCAL if profile == "focal" else None
    return replace(small_spec(arrays), profile=profile, focal=focal)


def focal_arguments(token: str, density: float = 0.3) -> dict[str, object]:
    """Random areas and confident queries; the second sample of a scene has none at all."""
    rng = np.random.default_rng(list(token.encode()))
    density = 0.0 if token.endswith("1") else density
    return {
        "areas": {
            "pv_feats_0": rng.random((2, 5, 7)) < density,
            "bev_feats": rng.random((9, 8)) < density,
        },
        "confident": rng.random(6) < density,
    }


def profile_store(path: Path, profile: str, n_samples: int = 3) -> Path:
    """A store of one scene, "scene-1"."""
    writer = StoreWriter.create(path, profile_spec(profile))
    samples = sample_list("scene-1", n_samples)
    with writer.scene("scene-1", "scene-token", samples) as scene:
        for token, _ in samples:
            arguments = focal_arguments(token) if profile == "focal" else {}
            scene.append(token, sample_values(token, TEACHER_ARRAYS), **arguments)
    return path
