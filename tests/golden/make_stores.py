"""Write the golden stores beside this file: one for each profile of the schema version, and one with a layer.

A change of the format gets a new schema version and new stores: remove the old ones, then

    python tests/golden/make_stores.py tests/golden
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache_schema.array_spec import DETECTION, QUERY
from cache_schema.detections import DETECTION_ARRAYS, detection_arrays
from cache_schema.layers import begin_layer
from cache_schema.reader import TargetReader
from cache_schema.spec import (
    SCHEMA_VERSION,
    ArraySpec,
    DatasetFacts,
    FocalFacts,
    InputFacts,
    LayerFacts,
    NumericsFacts,
    OutputFacts,
    StoreSpec,
    TeacherFacts,
)
from cache_schema.writer import StoreWriter

PROFILES = ("exact", "compact", "focal")
LAYERED, LAYER = "layered", "head"
SCENE = "scene-0061"
SAMPLES = [("token-a", 1_532_402_927_000_000), ("token-b", 1_532_402_927_500_000)]
PLACES = {
    "image_map": {"stride": 8.0},
    "bev_map": {"extent_m": (-10.0, -8.0, -5.0, 10.0, 8.0, 3.0), "frame": "lidar"},
}
HEAD = {"decoder.weight": np.array([[0.5, -1.0], [2.0, 0.25]], np.float32), "scale": np.array(3, np.float32)}


def golden_spec(profile: str) -> StoreSpec:
    """A detector with two cameras, two channels and four queries."""
    arrays = (
        (
            "pv_feats_0",
            "image_map",
            "float16",
            (2, 2, 3, 4),
            ("camera", "channel", "pv_0_y", "pv_0_x"),
            False,
        ),
        ("bev_feats", "bev_map", "float16", (2, 4, 5), ("channel", "bev_y", "bev_x"), False),
        ("query_logits", "query", "float16", (1, 4, 2), ("layer", "query", "class"), True),
        ("can_bus", "calibration", "float64", (18,), ("can_bus_number",), False),
    )
    focal = FocalFacts(min_score=0.25, background_block=2, areas={"margin_cells": 1.0})
    return StoreSpec(
        profile=profile,
        focal=focal if profile == "focal" else None,
        arrays=tuple(
            ArraySpec(
                name=name,
                role=role,
                dtype=dtype,
                shape=shape,
                dimension_names=names,
                compressed=compressed,
                **PLACES.get(role, {}),
            )
            for name, role, dtype, shape, names, compressed in arrays
        )
        + detection_arrays(),
        teacher=TeacherFacts(
            detector="Golden",
            config={"type": "Golden", "norm": {"eps": 1e-5}},
            regime="streaming",
            trained=False,
            checkpoint_sha256=None,
            random_seed=0,
        ),
        inputs=InputFacts(
            camera_order=("CAM_FRONT", "CAM_BACK"),
            image_shape=(24, 32),
            pipeline={"color_order": "BGR"},
            present={"can_bus": True},
        ),
        outputs=OutputFacts(
            class_names=("car", "truck"),
            box_convention="x, y, z, l, …",
            query_box_encoding="cx, cy, …",
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
        # Said here, so that a release changes no golden byte.
        written_by="focalcache 0.1.0",
    )


def golden_values(spec: StoreSpec, row: int) -> dict[str, np.ndarray]:
    """Small multiples of 1/4, which every floating-point dtype holds exactly; two detections, then none."""
    values = {}
    for array in spec.arrays:
        count = np.arange(int(np.prod(array.shape)), dtype=np.int64)
        quarters = (count * 7 + 5 * row) % 23 - 11
        values[array.name] = (quarters / 4).astype(array.dtype).reshape(array.shape)
    for name in DETECTION_ARRAYS:
        values[name] = np.abs(values[name][: 2 - 2 * row])
    values["bev_feats"][1, 0] = 0
    return values


def golden_areas(row: int) -> dict[str, object]:
    """The second sample has nothing that is worth keeping."""
    pv, bev = np.zeros((2, 3, 4), bool), np.zeros((4, 5), bool)
    confident = np.zeros(4, bool)
    if row == 0:
        pv[0, 1, 2] = pv[1, 0, 0] = pv[1, 2, 3] = True
        bev[0, 1:3] = bev[3, 4] = True
        confident[[1, 3]] = True
    return {"areas": {"pv_feats_0": pv, "bev_feats": bev}, "confident": confident}


def write_golden_store(path: Path, profile: str) -> None:
    """A finished store of one scene."""
    spec = golden_spec(profile)
    writer = StoreWriter.create(path, spec, planned={SCENE: len(SAMPLES)})
    writer.write_teacher_head(HEAD)
    with writer.scene(SCENE, "scene-token", SAMPLES) as scene:
        for row, (token, _) in enumerate(SAMPLES):
            arguments = golden_areas(row) if profile == "focal" else {}
            scene.append(token, golden_values(spec, row), **arguments)
    writer.seal()


def write_golden_layer(store: Path) -> None:
    """A finished layer of a finished store: other queries of the same samples."""
    spec = golden_spec("focal")
    spec = replace(
        spec,
        arrays=tuple(array for array in spec.arrays if array.role in (QUERY, DETECTION)),
        teacher=replace(spec.teacher, detector="Golden head", config={"type": "Golden head"}),
        focal=replace(spec.focal, background_block=1, areas={"at_most": 300}),
        layer=LayerFacts(store_digest=TargetReader(store).digest, reads="bev_feats"),
    )
    writer = begin_layer(store, LAYER, spec, {SCENE: len(SAMPLES)})
    writer.write_teacher_head(
        {name: np.negative(values, out=np.empty_like(values)) for name, values in HEAD.items()}
    )
    with writer.scene(SCENE, "scene-token", SAMPLES) as scene:
        for row, (token, _) in enumerate(SAMPLES):
            values = golden_values(golden_spec("focal"), 1 - row)
            own = {array.name: values[array.name] for array in spec.arrays}
            scene.append(token, own, areas={}, confident=golden_areas(row)["confident"])
    writer.seal()


def store_name(profile: str) -> str:
    """Name of a golden store's folder."""
    return f"store-v{SCHEMA_VERSION}-{profile}"


if __name__ == "__main__":
    for name in PROFILES:
        write_golden_store(Path(sys.argv[1]) / store_name(name), name)
    layered = Path(sys.argv[1]) / store_name(LAYERED)
    write_golden_store(layered, "exact")
    write_golden_layer(layered)
