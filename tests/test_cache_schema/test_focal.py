"""The profile `focal`: what is kept comes back, what is left out can be told from what is zero."""

from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from profile_cases import FOCAL, TEACHER_ARRAYS, array, focal_arguments, profile_spec, profile_store
from store_cases import sample_list, sample_values, small_spec

from cache_schema import zarr_metadata
from cache_schema.errors import Corrupt, SpecInvalid
from cache_schema.profiles.focal import FocalMap, block_means, encode_map
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter

TOKENS = [token for token, _ in sample_list("scene-1", 3)]


@pytest.fixture
def store(tmp_path):
    return profile_store(tmp_path / "teacher.zarr", "focal")


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("name", ["pv_feats_0", "bev_feats"])
def test_maps_come_back_inside_the_areas(store, token, name):
    values = sample_values(token, TEACHER_ARRAYS)[name].astype(np.float32)
    inside = focal_arguments(token)["areas"][name]
    kept = TargetReader(store).read_focal(token).maps[name]
    np.testing.assert_array_equal(kept.mask, inside)
    np.testing.assert_array_equal(kept.cell_index, np.flatnonzero(inside))
    dense = kept.values()
    assert (dense.dtype, dense.shape, dense.flags.c_contiguous) == (np.float32, values.shape, True)
    where = np.broadcast_to(np.expand_dims(inside, -3), values.shape)
    half_a_scale = np.broadcast_to(kept.scale[..., None, None], values.shape) * 0.5001
    assert (np.abs(dense - values) <= half_a_scale)[where].all()
    assert (dense[~where] == 0).all()
    np.testing.assert_array_equal(kept.filled()[where], dense[where])
    np.testing.assert_array_equal(kept.filled()[~where], kept.background_values()[~where])


@pytest.mark.parametrize("token", TOKENS)
def test_background_is_the_mean_of_each_block(store, token):
    values = sample_values(token, TEACHER_ARRAYS)["bev_feats"].astype(np.float64)
    kept = TargetReader(store).read_focal(token).maps["bev_feats"]
    assert kept.background.shape == (3, 3, 2)
    background = kept.background_values()
    for y in range(9):
        for x in range(8):
            block = values[:, y // 4 * 4 : y // 4 * 4 + 4, x // 4 * 4 : x // 4 * 4 + 4]
            error = np.abs(background[:, y, x] - block.mean(axis=(1, 2)))
            assert (error <= kept.background_scale * 0.501).all()


@pytest.mark.parametrize("token", TOKENS)
def test_confident_queries_come_back_bit_for_bit(store, token):
    values = sample_values(token, TEACHER_ARRAYS)
    confident = focal_arguments(token)["confident"]
    sample = TargetReader(store).read_focal(token)
    np.testing.assert_array_equal(sample.query_index, np.flatnonzero(confident))
    assert set(sample.queries) == {"query_logits", "focal_feats"}
    for name, rows in sample.queries.items():
        assert rows.dtype == np.float16
        np.testing.assert_array_equal(rows, values[name][:, confident])
    np.testing.assert_array_equal(sample.others["can_bus"], values["can_bus"])


def test_zero_inside_is_not_left_out(tmp_path):
    arrays = TEACHER_ARRAYS[1:2]
    writer = StoreWriter.create(tmp_path / "teacher.zarr", profile_spec("focal", arrays))
    inside = np.zeros((9, 8), bool)
    inside[2, 3] = True
    with writer.scene("s", "t", [("a", 1)]) as scene:
        scene.append("a", {"bev_feats": np.zeros((3, 9, 8), np.float16)}, areas={"bev_feats": inside})
    sample = TargetReader(writer.path).read_focal("a")
    assert sample.maps["bev_feats"].cells.tolist() == [[0, 0, 0]]
    assert sample.maps["bev_feats"].cell_index.tolist() == [2 * 8 + 3]
    assert (sample.queries, sample.query_index, sample.others) == ({}, None, {})


@settings(max_examples=60, deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=3, max_dims=4, max_side=6),
    block=st.integers(1, 7),
    seed=st.integers(0, 99),
)
def test_any_map_and_mask(shape, block, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float16)
    mask = rng.random((*shape[:-3], *shape[-2:])) < rng.random()
    stored = encode_map("m", values, mask, block)
    kept = FocalMap(**{name.removeprefix("m_"): part for name, part in stored.items()}, block=block)
    assert kept.cells.shape == (mask.sum(), shape[-3])
    assert kept.filled().shape == shape
    everywhere = encode_map("m", values, np.ones_like(mask), block)
    full = FocalMap(**{name.removeprefix("m_"): part for name, part in everywhere.items()}, block=block)
    np.testing.assert_allclose(full.values(), values, atol=full.scale.max() * 0.501)


def test_one_block_is_the_mean_of_all():
    values = np.arange(12, dtype=np.float16).reshape(1, 3, 4)
    assert block_means(values, 100).tolist() == [[[5.5]]]
    np.testing.assert_array_equal(block_means(values, 1), values)


WRONG = {
    "no areas": ({"areas": None}, ["areas['bev_feats']   expected bool (9, 8); got nothing", "pv_feats_0"]),
    "no queries": ({"confident": None}, ["confident", "expected bool (6,); got nothing"]),
    "queries by number": ({"confident": np.array([1, 4])}, ["expected bool (6,); got int64 (2,)"]),
    "stranger": (
        {"areas": {"can_bus": np.ones(18, bool)}},
        ["areas['can_bus']", "only maps: pv_feats_0, bev_"],
    ),
    "shape": ({"areas": {"bev_feats": np.ones((8, 9), bool)}}, ["expected bool (9, 8); got bool (8, 9)"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arguments_are_said_together(tmp_path, case):
    change, says = WRONG[case]
    writer = StoreWriter.create(tmp_path / "teacher.zarr", profile_spec("focal"))
    with (
        pytest.raises(SpecInvalid) as caught,
        writer.scene("scene-1", "t", sample_list("scene-1", 1)) as scene,
    ):
        scene.append(
            TOKENS[0], sample_values(TOKENS[0], TEACHER_ARRAYS), **focal_arguments(TOKENS[0]) | change
        )
    for words in says:
        assert words in str(caught.value)


def test_areas_belong_to_focal_only(tmp_path):
    writer = StoreWriter.create(tmp_path / "teacher.zarr", profile_spec("exact"))
    with (
        pytest.raises(SpecInvalid, match=r"areas .* not focal"),
        writer.scene("scene-1", "t", sample_list("scene-1", 1)) as scene,
    ):
        scene.append(TOKENS[0], sample_values(TOKENS[0], TEACHER_ARRAYS), **focal_arguments(TOKENS[0]))
    path = profile_store(tmp_path / "exact.zarr", "exact")
    with pytest.raises(SpecInvalid, match="profile exact"):
        TargetReader(path).read_focal(TOKENS[0])


def test_focal_facts_belong_to_focal_only():
    with pytest.raises(SpecInvalid, match=r"focal +expected facts, as the profile is focal; got null"):
        replace(small_spec(), profile="focal")
    with pytest.raises(SpecInvalid, match=r"focal +expected null, as the profile is exact; got facts"):
        replace(small_spec(), focal=FOCAL)
    with pytest.raises(SpecInvalid, match=r"min_score +expected a number from 0 to 1; got 1\.5"):
        replace(FOCAL, min_score=1.5)
    flat = array("bev_feats", "float16", (9, 8), ("bev_y", "bev_x"))
    with pytest.raises(
        SpecInvalid, match=r"array bev_feats +expected a floating-point map \(channel, y, x\)"
    ):
        profile_spec("compact", [flat])


def test_several_chunks_and_shards_read_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_metadata, "MAX_SHARD_NBYTES", 500)
    monkeypatch.setattr("cache_schema.profiles.encoding.RAGGED_CHUNK_NBYTES", 12)
    zarr_metadata.array_metadata.cache_clear()
    path = profile_store(tmp_path / "teacher.zarr", "focal", n_samples=5)
    zarr_metadata.array_metadata.cache_clear()
    reader = TargetReader(path)
    group = zarr.open_group(path / "scenes" / "scene-1", mode="r")
    assert group["pv_feats_0_cells"].chunks == (1, 4, 3)
    assert len(list((path / "scenes" / "scene-1" / "pv_feats_0_cells").glob("c.*"))) == 3
    for row, (token, _) in enumerate(sample_list("scene-1", 5)):
        stored = reader[token]
        for spec in reader.spec.stored_arrays:
            whole = np.asarray(group[spec.name][row])
            rows = len(stored[spec.name]) if spec.ragged else None
            np.testing.assert_array_equal(whole[:rows], stored[spec.name])
            if spec.ragged:
                fill = np.full_like(whole[rows:], spec.fill_value)
                np.testing.assert_array_equal(whole[rows:], fill)


def test_every_damaged_byte_of_a_ragged_shard_is_noticed(store):
    path = store / "scenes" / "scene-1" / "bev_feats_cells" / "c.0.0.0"
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        reader = TargetReader(store)
        with pytest.raises(Corrupt):
            [reader.read(token, ["bev_feats_cells"]) for token in TOKENS]
