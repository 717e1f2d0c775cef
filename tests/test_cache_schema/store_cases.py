"""Small specs, stores and samples that the tests of the store share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache_schema.spec import (
    ArraySpec,
    DatasetFacts,
    InputFacts,
    NumericsFacts,
    OutputFacts,
    StoreSpec,
    TeacherFacts,
)
from cache_schema.writer import StoreWriter

ROLES = {
    "pv_feats_0": "image_map",
    "pv_feats_1": "image_map",
    "pv_feats_2": "image_map",
    "pv_feats_3": "image_map",
    "bev_feats": "bev_map",
    "can_bus": "calibration",
    "lidar2img": "calibration",
}


def about(name: str) -> dict[str, object]:
    """Role, stride and extent of the arrays that the tests use; unknown ones are about queries."""
    role = ROLES.get(name, "query")
    if role == "image_map":
        return {"role": role, "stride": 8.0}
    if role == "bev_map":
        return {"role": role, "extent_m": (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), "frame": "lidar"}
    return {"role": role}


SMALL_ARRAYS = (
    ArraySpec(
        name="bev_feats",
        **about("bev_feats"),
        dtype="float16",
        shape=(4, 6, 5),
        dimension_names=("channel", "bev_y", "bev_x"),
        compressed=False,
    ),
    ArraySpec(
        name="query_boxes",
        **about("query_boxes"),
        dtype="float32",
        shape=(2, 30, 10),
        dimension_names=("layer", "query", "box_code"),
        compressed=True,
    ),
    ArraySpec(
        name="can_bus",
        **about("can_bus"),
        dtype="float64",
        shape=(18,),
        dimension_names=("can_bus_entry",),
        compressed=False,
    ),
)


def small_spec(arrays: Sequence[ArraySpec] = SMALL_ARRAYS) -> StoreSpec:
    """A complete spec of a detector that does not exist."""
    return StoreSpec(
        profile="exact",
        arrays=tuple(arrays),
        teacher=TeacherFacts(
            detector="Toy",
            config={"type": "Toy", "depth": 2, "norm": {"eps": 1e-5}},
            regime="streaming",
            trained=True,
            checkpoint_sha256="5c" * 32,
        ),
        inputs=InputFacts(
            camera_order=("CAM_FRONT", "CAM_BACK"),
            image_shape=(64, 96),
            pipeline={"scale": 1.0, "mean": [103.53, 116.28, 123.675], "color_order": "BGR"},
            present={"can_bus": True},
        ),
        outputs=OutputFacts(
            class_names=("car", "truck"),
            box_convention="x, y, z, l, …",
            query_box_encoding="cx, cy, log w, …",
            not_stored=(),
        ),
        dataset=DatasetFacts(name="nuscenes", version="v1.0-mini", split="mini_train"),
        numerics=NumericsFacts(
            version=1,
            op_backend="torch",
            device="cpu",
            compute_dtype="float32",
            tf32=False,
            deterministic=True,
            threads=1,
        ),
    )


def sample_list(scene: str, n_samples: int) -> list[tuple[str, int]]:
    """(sample_token, timestamp_us) half a second apart."""
    return [(f"{scene}-token{row}", 1_500_000_000_000_000 + 500_000 * row) for row in range(n_samples)]


def sample_values(token: str, arrays: Sequence[ArraySpec] = SMALL_ARRAYS) -> dict[str, np.ndarray]:
    """Values that depend on nothing but the token and the array's name."""
    return {array.name: random_values(array, f"{token}/{array.name}") for array in arrays}


def random_values(array: ArraySpec, seed: str) -> np.ndarray:
    """Finite values of every magnitude for floats, the whole range for integers."""
    rng = np.random.default_rng(list(seed.encode()))
    dtype = np.dtype(array.dtype)
    if dtype.kind == "f":
        return rng.normal(scale=3.0, size=array.shape).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(rng.random(array.shape) < 0.5)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, size=array.shape, dtype=dtype, endpoint=True)


def write_scene(
    writer: StoreWriter, scene: str, n_samples: int, arrays: Sequence[ArraySpec] = SMALL_ARRAYS
) -> list[str]:
    """Write a scene of `sample_values`; returns its sample tokens."""
    samples = sample_list(scene, n_samples)
    with writer.scene(scene, f"{scene}-scene-token", samples) as open_scene:
        for token, _ in samples:
            open_scene.append(token, sample_values(token, arrays))
    return [token for token, _ in samples]


def small_store(path: Path, scenes: dict[str, int]) -> Path:
    """A store with scenes of so many samples each."""
    writer = StoreWriter.create(path, small_spec())
    for scene, n_samples in scenes.items():
        write_scene(writer, scene, n_samples)
    return path
