"""What comes out of a store is what its own decoding says, for every profile; and what data workers read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from train_cases import FRAMES, SPLIT, VERSION

from cache_schema.errors import SampleMissing
from cache_schema.profiles.compact import float_maps
from cache_schema.reader import TargetReader
from camera3d.data import ImagePipeline, NuScenesQueueDataset, collate_queue, load_or_build_index
from camera3d.detectors.builder import load_config
from train.targets import CachedTargets, TargetLayout, TeacherTargets

PROFILES = ("exact", "compact", "focal")
MAPS = ("pv_feats_0", "pv_feats_1", "pv_feats_2", "bev_feats")
QUERIES = ("query_logits", "query_boxes", "sampling_locations", "attention_weights", "focal_feats")
# Half precision keeps 11 bits; products of int8 and scale lie in its normal range or are tiny.
HALF = {"rtol": 2.0**-11, "atol": 1e-7}


def opened(workshop, profile: str) -> TargetReader:
    return TargetReader(workshop.store(profile))


def targets_of(reader: TargetReader, tokens) -> TeacherTargets:
    samples = [{name: torch.from_numpy(values) for name, values in reader[t].items()} for t in tokens]
    return TeacherTargets(samples, TargetLayout.of_store(reader.spec))


def decoded(reader: TargetReader, token: str, name: str) -> np.ndarray:
    """The map by the store's own decoding, float32."""
    if reader.spec.profile == "focal":
        return reader.read_focal(token).maps[name].filled()
    return float_maps(reader[token])[name].astype(np.float32)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", MAPS)
def test_maps_are_as_the_store_decodes_them(workshop, profile, name):
    reader = opened(workshop, profile)
    for token in reader.sample_tokens[:3]:
        got = targets_of(reader, [token]).map(name)
        assert got.dtype == torch.float16
        assert np.abs(got.numpy()).max() > 0
        np.testing.assert_allclose(got[0].float().numpy(), decoded(reader, token, name), **HALF)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_batch_of_two_is_two_samples(workshop, profile):
    reader = opened(workshop, profile)
    tokens = reader.sample_tokens[1:3]
    both, singles = targets_of(reader, tokens), [targets_of(reader, [token]) for token in tokens]
    for name in MAPS:
        assert torch.equal(both.map(name), torch.cat([one.map(name) for one in singles]))
    for name in QUERIES:
        assert torch.equal(both.queries(name), torch.cat([one.queries(name) for one in singles]))
    assert torch.equal(
        both.confidence(min_score=0.1, at_most=9),
        torch.cat([one.confidence(min_score=0.1, at_most=9) for one in singles]),
    )
    sure = {"min_score": 0.1, "at_most": 2}
    for found, one in zip(both.detected_boxes(**sure), singles, strict=True):
        assert torch.equal(found, one.detected_boxes(**sure)[0])
        assert 0 < len(found) <= 2


@pytest.mark.parametrize("profile", PROFILES)
def test_detections_are_the_same_in_every_profile(workshop, profile):
    reader, exact = opened(workshop, profile), opened(workshop, "exact")
    for token in exact.sample_tokens:
        (found,) = targets_of(reader, [token]).detected_boxes(min_score=0.1, at_most=300)
        stored = exact[token]
        np.testing.assert_array_equal(found, stored["detection_boxes"][stored["detection_scores"] >= 0.1])


def test_focal_queries_lie_where_exact_has_them(workshop):
    focal, exact = opened(workshop, "focal"), opened(workshop, "exact")
    for token in exact.sample_tokens:
        kept = torch.from_numpy(focal[token]["query_confident"])
        assert 0 < kept.sum() < len(kept), "the case is only one when some queries are confident"
        for name in QUERIES:
            got, whole = (targets_of(r, [token]).queries(name) for r in (focal, exact))
            assert got.shape == whole.shape
            assert got.dtype == whole.dtype
            assert torch.equal(got[:, :, kept], whole[:, :, kept])
            assert not got[:, :, ~kept].any()


def test_focal_confidence_is_that_of_exact(workshop):
    focal, exact = (
        targets_of(opened(workshop, p), opened(workshop, p).sample_tokens) for p in PROFILES[::-2]
    )
    for limits in ({"min_score": 0.1, "at_most": 300}, {"min_score": 0.2, "at_most": 2}):
        assert focal.confidence(**limits).any()
        assert torch.equal(focal.confidence(**limits), exact.confidence(**limits))


def test_confidence_is_the_best_class_of_the_last_layer(workshop):
    reader = opened(workshop, "exact")
    token = reader.sample_tokens[0]
    score = 1 / (1 + np.exp(-reader[token]["query_logits"][-1].astype(np.float64).max(-1)))
    expected = np.where(score >= 0.1, score, 0)
    got = targets_of(reader, [token]).confidence(min_score=0.1, at_most=300)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_store_without_query_arrays(workshop, profile):
    reader = TargetReader(workshop.store(profile, ("bev",)))
    layout = TargetLayout.of_store(reader.spec)
    assert (layout.query_axes, layout.num_queries) == ({}, 0)
    item = CachedTargets(reader, ["bev_feats"])({"data_samples": Named(reader.sample_tokens[0])})
    assert TeacherTargets([item["targets"]], layout).map("bev_feats").shape == (1, 16, 16, 16)


class Named:
    """Stands for a data sample of which only the token counts."""

    def __init__(self, sample_token: str) -> None:
        self.sample_token = sample_token


NEEDED = {
    "exact": {"bev_feats", "query_logits"},
    "compact": {"bev_feats", "bev_feats_scale", "query_logits"},
    "focal": {
        "query_logits",
        "query_confident",
        *(f"bev_feats_{part}" for part in ("cells", "scale", "mask", "background", "background_scale")),
    },
}


@pytest.mark.parametrize("profile", PROFILES)
def test_only_what_is_needed_is_read(workshop, profile):
    reader = opened(workshop, profile)
    read = CachedTargets(reader, ["bev_feats", "query_logits"])
    token = reader.sample_tokens[-1]
    for transform in (read, pickle.loads(pickle.dumps(read))):
        item = transform({"data_samples": Named(token), "kept": 1})
        assert set(item) == {"data_samples", "kept", "targets"}
        assert set(item["targets"]) == NEEDED[profile]
        for name, values in item["targets"].items():
            np.testing.assert_array_equal(values.numpy(), reader[token][name])


def test_a_missing_sample_is_named(workshop):
    read = CachedTargets(opened(workshop, "exact"), ["bev_feats"])
    with pytest.raises(SampleMissing, match="0123456789abcdef"):
        read({"data_samples": Named("0123456789abcdef")})


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_targets_of_data_workers(workshop, start_method, one_thread):
    reader = opened(workshop, "focal")
    config = load_config(workshop.student_config())
    dataset = NuScenesQueueDataset(
        load_or_build_index(workshop.dataroot, VERSION, SPLIT),
        ImagePipeline.from_config(config.inputs),
        workshop.dataroot,
        point_cloud_range=config.model.point_cloud_range,
        queue_length=1,
        transforms=[CachedTargets(reader, ["bev_feats"])],
    )
    loader = DataLoader(
        dataset,
        batch_size=4,
        num_workers=1,
        collate_fn=collate_queue,
        multiprocessing_context=start_method,
    )
    seen = 0
    for batch in loader:
        for sample, targets in zip(batch["data_samples"], batch["extras"]["targets"], strict=True):
            for name, values in targets.items():
                np.testing.assert_array_equal(values.numpy(), reader[sample.sample_token][name])
            seen += 1
    assert seen == FRAMES
