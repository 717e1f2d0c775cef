"""The command's profiles: what `compact` and `focal` keep of what `exact` stores."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dump_cases import contents
from test_dump import after_frames

from cache_schema.inspect_cache import main as inspect
from cache_schema.profiles import encoder
from cache_schema.profiles.compact import float_maps
from cache_schema.reader import TargetReader
from camera3d.data import load_or_build_index
from extract.focal_areas import FocalAreas, FocalOptions
from extract.host_copy import quantise_maps

FOCAL = ("--profile", "focal", "--focal-margins", "12.8,0.5")
# The untrained teacher gives every class a probability of about 0.02: with these it is sure of some queries.
SURE, UNSURE = ("--focal-min-score", "0.018"), ("--focal-min-score", "0.9")
MAPS = ("bev_feats", "pv_feats_0")


@pytest.fixture(scope="module")
def exact(peace):
    return TargetReader(peace)


@pytest.fixture(scope="module")
def compact(run_dump, tmp_path_factory):
    store = tmp_path_factory.mktemp("compact") / "teacher.zarr"
    assert run_dump(store, "--profile", "compact") == 0
    return TargetReader(store)


@pytest.fixture(scope="module")
def focal(run_dump, tmp_path_factory):
    store = tmp_path_factory.mktemp("focal") / "teacher.zarr"
    assert run_dump(store, *FOCAL, *SURE) == 0
    return TargetReader(store)


def test_compact_is_exact_within_half_a_scale(exact, compact):
    assert compact.sample_tokens == exact.sample_tokens
    for token in exact.sample_tokens:
        wanted, stored = exact[token], compact[token]
        floats = float_maps(stored)
        assert floats.keys() == wanted.keys()
        for name, values in wanted.items():
            if name in MAPS:
                error = np.abs(floats[name] - values.astype(np.float32))
                assert (error <= stored[f"{name}_scale"][..., None, None] * 0.5001).all()
            else:
                np.testing.assert_array_equal(floats[name], values)


def test_focal_keeps_what_exact_has(exact, focal):
    for token in exact.sample_tokens:
        wanted, sample = exact[token], focal.read_focal(token)
        for name in MAPS:
            kept = sample.maps[name]
            values = np.moveaxis(wanted[name], -3, -1)[kept.mask]
            scale = kept.scale if kept.mask.ndim == 2 else kept.scale[np.nonzero(kept.mask)[0]]
            assert 0 < len(values) < kept.mask.size
            assert (np.abs(kept.cell_values() - values) <= scale * 0.5001).all()
        for name, values in sample.queries.items():
            np.testing.assert_array_equal(values, wanted[name][:, sample.query_index], err_msg=name)
        score = 1 / (1 + np.exp(-wanted["query_logits"][-1].astype(np.float64).max(-1)))
        assert 0 < len(sample.query_index) < len(score)
        # The stored logits are halves: near the threshold they may be on its other side.
        assert (score[sample.query_index] > 0.018 - 1e-4).all()
        assert (np.delete(score, sample.query_index) < 0.018 + 1e-4).all()


def test_focal_facts_are_recorded_and_a_part_of_the_fingerprint(focal, run_dump, capsys):
    facts = focal.spec.focal
    assert (facts.min_score, facts.background_block) == (0.018, 8)
    assert (facts.areas["bev_margin_m"], facts.areas["pv_margin_cells"]) == (12.8, 0.5)
    assert (facts.areas["at_most"], facts.areas["range_m"][3:]) == (300, [51.2, 51.2, 3.0])
    assert run_dump(focal.path, "--profile", "focal", *SURE) == 2
    assert "bev_margin_m" in capsys.readouterr().err


@pytest.mark.parametrize("profile", ["compact", "focal"])
def test_another_profile_is_refused_by_name(profile, peace, run_dump, capsys):
    assert run_dump(peace, "--profile", profile) == 2
    err = capsys.readouterr().err
    assert "FingerprintMismatch" in err
    assert re.search(rf"\n +profile +.*{profile}.*exact", err)


def test_areas_of_one_box():
    """One box, 6 m long and 2 m wide, straight ahead of a camera that looks along x: areas by hand."""
    chosen = hand_placed(box=(20.0, 0.0, 0.0, 6.0, 2.0, 2.0, 0.0, np.nan, np.nan), logit=-9.0)
    # BEV: 8 cells of 12.8 m; centres at ±6.4, ±19.2, …; margin 6.4 m: x 10.6…29.4, y ±7.4.
    expected = np.zeros((8, 8), bool)
    expected[3:5, 5] = True
    np.testing.assert_array_equal(chosen.areas["bev_feats"], expected)
    # Image: the near face at 17 m spans 48 ± 8.82 by 32 ± 8.82 pixels, and a margin of half a cell, 16.
    # Cells are 32 pixels with centres at 16, 48, 80 and at 16, 48.
    np.testing.assert_array_equal(chosen.areas["pv_feats_0"], [[[False, True, False]] * 2])
    assert not chosen.confident.any()


def test_a_detection_is_an_area_too():
    box = (20.0, 0.0, 0.0, 6.0, 2.0, 2.0, 0.0, 0.0, 0.0)
    from_ground_truth = hand_placed(box=box, logit=-9.0)
    found = hand_placed(box=None, detection=box, logit=2.0, score=0.88)
    np.testing.assert_array_equal(found.confident, [False, True, False])
    for name in MAPS:
        np.testing.assert_array_equal(found.areas[name], from_ground_truth.areas[name])
    nothing = hand_placed(box=None, detection=box, logit=-9.0, score=0.09)
    assert not any(area.any() for area in nothing.areas.values())


def test_ground_truth_out_of_range_is_left_out():
    chosen = hand_placed(box=(60.0, 0.0, 0.0, 6.0, 2.0, 2.0, 0.0, 0.0, 0.0), logit=-9.0)
    assert not any(area.any() for area in chosen.areas.values())


def hand_placed(*, box, logit, detection=(1.0,) * 9, score=0.0):
    """What is kept of a frame with one box, one camera, one detection and three queries, one with a logit."""
    range_m = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
    arrays = [
        SimpleNamespace(name="pv_feats_0", role="image_map", shape=(1, 4, 2, 3), stride=32),
        SimpleNamespace(name="bev_feats", role="bev_map", shape=(4, 8, 8), extent_m=range_m, frame="lidar"),
        SimpleNamespace(name="query_logits", role="query", shape=(2, 3, 10)),
    ]
    areas = FocalAreas(FocalOptions(bev_margin_m=6.4, pv_margin_cells=0.5), arrays=arrays, range_m=range_m)
    logits = torch.full((2, 3, 10), -9.0)
    logits[-1, 1, 4] = logit
    frame = SimpleNamespace(
        gt_boxes=np.array([] if box is None else [box]).reshape(-1, 9), scene_name="s", sample_token="t"
    )
    camera = np.array([[48.0, -150, 0, 0], [32, 0, -150, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    tensors = {
        "query_logits": logits,
        "detection_boxes": torch.tensor([detection]),
        "detection_scores": torch.tensor([score]),
        "lidar2img": torch.from_numpy(camera)[None],
    }
    return areas.kept(frame, tensors)


def test_masks_hold_every_box_of_the_frame(focal, dataroot):
    """Cell by cell and box by box, the slow way."""
    centres = (np.arange(8) + 0.5) * 12.8 - 51.2
    margin = 12.8
    for frame in load_or_build_index(dataroot, "v1.0-mini", "tiny").frames():
        sample = focal.read_focal(frame.sample_token)
        in_range = frame.gt_boxes[np.abs(frame.gt_boxes[:, :2]).max(1) < 51.2]
        assert len(in_range)
        for x, y, _, length, width, _, yaw, *_ in in_range:
            for row, column in np.ndindex(8, 8):
                offset = (centres[column] - x) + 1j * (centres[row] - y)
                along = offset * np.exp(-1j * yaw)
                half = length / 2 + margin, width / 2 + margin
                if abs(along.real) < half[0] - 1e-3 and abs(along.imag) < half[1] - 1e-3:
                    assert sample.maps["bev_feats"].mask[row, column]


def test_unsure_teacher_and_no_annotations(tiny_nuscenes, run_dump, tmp_path):
    scenes = {"scene-0001": 2}
    data = tiny_nuscenes(scenes=scenes, image_hw=(64, 96), splits={"tiny": list(scenes)}, tracks=0)
    assert run_dump(tmp_path / "teacher.zarr", *FOCAL, *UNSURE, data=data) == 0
    reader = TargetReader(tmp_path / "teacher.zarr")
    for token in reader.sample_tokens:
        sample = reader.read_focal(token)
        assert sample.query_index.size == 0
        assert sample.queries["query_feats"].shape == (2, 0, 32)
        for name in MAPS:
            assert not sample.maps[name].mask.any()
            assert np.any(sample.maps[name].background_values())


def test_shards_and_resume_make_the_same_focal_store(focal, run_dump, tmp_path, monkeypatch):
    store = tmp_path / "teacher.zarr"

    def stop(token, tensors):
        raise KeyboardInterrupt

    assert run_dump(store, *FOCAL, *SURE, "--shard", "2/2", "--workers", "1") == 0
    with monkeypatch.context() as patch:
        after_frames(patch, 4, stop)
        assert run_dump(store, *FOCAL, *SURE) == 130
    assert run_dump(store, *FOCAL, *SURE) == 0
    assert contents(store) == contents(focal.path)


SUBSETS = {
    "bev": {"bev_feats"},
    "pv": {"pv_feats_0"},
    "queries": set(),
}


@pytest.mark.parametrize("group", SUBSETS)
def test_array_subsets(group, focal, run_dump, tmp_path):
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, *FOCAL, *SURE, "--arrays", group, "--scenes", "scene-0001") == 0
    reader = TargetReader(store)
    for token in reader.sample_tokens:
        sample, whole = reader.read_focal(token), focal.read_focal(token)
        assert sample.maps.keys() == SUBSETS[group]
        assert (sample.query_index is None) == (group != "queries")
        for name, kept in sample.maps.items():
            np.testing.assert_array_equal(kept.mask, whole.maps[name].mask)
            np.testing.assert_array_equal(kept.cells, whole.maps[name].cells)


POISONED = {
    "a map, compact": ("compact", "bev_feats", ()),
    "a map, focal": ("focal", "bev_feats", ()),
    "queries": ("focal", "query_boxes", ()),
    "queries that are not stored": ("focal", "query_logits", ("--arrays", "pv")),
}


@pytest.mark.parametrize("case", POISONED)
def test_not_finite_names_sample_and_array(case, exact, run_dump, tmp_path, monkeypatch, capsys):
    profile, name, options = POISONED[case]

    def poison(token, tensors):
        tensors[name] = tensors[name] * float("nan")

    after_frames(monkeypatch, 4, poison)
    assert run_dump(tmp_path / "teacher.zarr", "--profile", profile, *options) == 2
    token = exact.scenes["scene-0002"][1]
    err = capsys.readouterr().err
    if name in MAPS:
        assert f"NotFinite: scene scene-0002, sample {token}, array {name}" in err
    else:
        assert re.search(rf"OutputsNotFinite: sample {token}: (\d+) of the \1 numbers of {name} that", err)


def test_maps_are_quantised_on_a_gpu_as_the_writer_does(exact, compact):
    spec = compact.spec
    values = exact[exact.sample_tokens[0]]
    values["bev_feats"][3] = 0
    tensors = {name: torch.from_numpy(array) for name, array in values.items()}
    wanted = encoder(spec.profile, spec.arrays).encode(values, None, None)
    quantised = {name: tensor.numpy() for name, tensor in quantise_maps(tensors, spec.arrays).items()}
    assert encoder(spec.profile, spec.arrays).problems(quantised, None, None) == []
    for name, array in wanted.items():
        np.testing.assert_array_equal(quantised[name], array, err_msg=name)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_reaches_the_scale(bad, compact):
    arrays = [array for array in compact.spec.arrays if array.is_map]
    tensors = {array.name: torch.ones(array.shape, dtype=torch.float16) for array in arrays}
    tensors["bev_feats"][2, 1, 1] = bad
    quantised = quantise_maps(tensors, arrays)
    assert torch.isfinite(quantised["bev_feats_scale"]).sum() == len(quantised["bev_feats_scale"]) - 1
    assert quantised["bev_feats"].min() >= -127


def test_stores_verify(compact, focal, capsys):
    for reader in (compact, focal):
        assert inspect(["verify", str(reader.path)]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    "option", [("--focal-margins", "3"), ("--focal-margins=-1,1",), ("--profile", "tiny")]
)
def test_bad_options(option, run_dump, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_dump(tmp_path / "teacher.zarr", *option)
    assert option[0].partition("=")[0] in capsys.readouterr().err


def test_bad_min_score(run_dump, tmp_path, capsys):
    assert run_dump(tmp_path / "teacher.zarr", "--profile", "focal", "--focal-min-score", "2") == 2
    assert "min_score" in capsys.readouterr().err
