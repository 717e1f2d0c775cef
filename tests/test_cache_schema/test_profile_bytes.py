"""How many bytes a sample of BEVFormer-Base takes in each profile, before any compression.

The image maps are 6 cameras × 256 channels × 30,825 cells, the BEV map 256 × 40,000 cells; 900
queries in 6 layers.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from profile_cases import FOCAL, array
from store_cases import small_spec

from cache_schema.inspection.planned_arrays import GROUPS, planned_arrays
from cache_schema.profiles import PROFILES
from cache_schema.spec import FocalFacts

PV_SIZES = ((116, 200), (58, 100), (29, 50), (15, 25))
BASE_ARRAYS = (
    *(
        array(f"pv_feats_{n}", "float16", (6, 256, *size), ("camera", "channel", f"pv_{n}_y", f"pv_{n}_x"))
        for n, size in enumerate(PV_SIZES)
    ),
    array("bev_feats", "float16", (256, 200, 200), ("channel", "bev_y", "bev_x")),
    array("query_logits", "float16", (6, 900, 10), ("layer", "query", "class")),
    array("query_boxes", "float32", (6, 900, 10), ("layer", "query", "box_code")),
    array("query_feats", "float16", (6, 900, 256), ("layer", "query", "channel")),
    array("reference_points", "float32", (6, 900, 3), ("layer", "query", "xyz")),
    array(
        "sampling_locations",
        "float32",
        (6, 900, 8, 1, 4, 2),
        ("layer", "query", "head", "bev_level", "point", "xy"),
    ),
    array(
        "attention_weights",
        "float16",
        (6, 900, 8, 1, 4),
        ("layer", "query", "head", "bev_level", "point"),
    ),
    array("focal_feats", "float16", (6, 900, 256), ("layer", "query", "channel")),
    array("can_bus", "float64", (18,), ("can_bus_number",)),
    array("lidar2img", "float64", (6, 4, 4), ("camera", "image_row", "lidar_column")),
)


def base_spec(profile):
    focal = FocalFacts(min_score=0.1, background_block=8, areas={}) if profile == "focal" else None
    return replace(small_spec(BASE_ARRAYS), profile=profile, focal=focal)


@pytest.mark.parametrize("profile", PROFILES)
def test_only_masks_are_compressed(profile):
    config = Path(__file__).parents[2] / "configs" / "teacher" / "bevformer_base.py"
    spec = replace(base_spec(profile), arrays=planned_arrays(config, GROUPS))
    compressed = [array.name for array in spec.stored_arrays if array.compressed]
    assert compressed == [array.name for array in spec.stored_arrays if array.name.endswith("_mask")]


def nbytes(arrays):
    return sum(array.bytes_per_sample for array in arrays)


def test_exact():
    assert base_spec("exact").bytes_per_sample == 122_821_712
    assert nbytes(a for a in BASE_ARRAYS if a.is_map) == 115_174_400


def test_compact_maps_fit_into_58_megabytes():
    spec = base_spec("compact")
    maps = [array for array in spec.stored_arrays if array.is_map]
    # Values, and the scales of 6 × 4 × 256 + 256 channels.
    scales = [spec.array(f"{array.name}_scale") for array in maps]
    assert (nbytes(maps), nbytes(scales)) == (57_587_200, 25_600)
    assert nbytes([*maps, *scales]) <= 58_000_000
    assert spec.bytes_per_sample == 57_612_800 + 7_647_312


# Cells of each map that the 51 boxes of a crowded nuScenes keyframe cover, with a margin of one cell.
CROWDED = {"pv_feats_0": 9891, "pv_feats_1": 2818, "pv_feats_2": 899, "pv_feats_3": 333, "bev_feats": 992}


@pytest.mark.parametrize(("n_queries", "expected"), [(100, 6_057_906), (300, 7_772_490)])
def test_focal_on_a_crowded_keyframe(n_queries, expected):
    spec = base_spec("focal")
    total = 0
    for stored in spec.stored_arrays:
        if stored.ragged:
            rows = CROWDED.get(stored.name.removesuffix("_cells"), n_queries)
            # Whole chunks, and 16 bytes of the shard's index for each that there could be.
            total += stored.n_chunks(rows) * stored.chunk_nbytes + 16 * stored.chunks_per_sample
        else:
            total += stored.bytes_per_sample
    assert total == expected
    assert total <= 8_000_000


def test_background_blocks_are_rounded_up():
    spec = replace(base_spec("focal"), focal=replace(FOCAL, background_block=8))
    assert spec.array("pv_feats_0_background").shape == (6, 256, 15, 25)
    assert spec.array("pv_feats_3_background").shape == (6, 256, 2, 4)
    assert spec.array("bev_feats_cells").shape == (40_000, 256)
    assert spec.array("bev_feats_cells").chunk_nbytes == 1 << 14
    assert np.dtype(spec.array("pv_feats_0_mask").dtype) == bool
