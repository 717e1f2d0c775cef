"""A store as a PyTorch dataset: floats of the same shapes, whatever the profile."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cache_schema.errors import SpecInvalid
from cache_schema.profiles.compact import float_maps
from cache_schema.reader import TargetReader
from train.targets.dataset import StoreDataset

PROFILES = ("exact", "compact", "focal")
MAPS = {"pv_feats_0": (2, 2, 3, 4), "bev_feats": (2, 4, 5)}


def golden(profile: str) -> Path:
    return Path(__file__).parents[1] / "golden" / f"store-v2-{profile}"


def decoded(profile: str, token: str, name: str) -> np.ndarray:
    """The map by the store's own decoding."""
    reader = TargetReader(golden(profile))
    if profile == "focal":
        return reader.read_focal(token).maps[name].filled()
    return float_maps(reader[token])[name].astype(np.float32)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_gives_floats_of_the_same_shapes(profile):
    dataset = StoreDataset(golden(profile))
    assert len(dataset) == 2
    assert [item["sample_token"] for item in dataset] == ["token-a", "token-b"]
    first = dataset[0]
    assert first["timestamp_us"] == 1_532_402_927_000_000
    for name, shape in MAPS.items():
        assert (first[name].dtype, first[name].shape) == (torch.float32, shape)
        np.testing.assert_allclose(first[name], decoded(profile, "token-a", name), rtol=2**-11)
    assert (first["query_logits"].dtype, first["query_logits"].shape) == (torch.float32, (1, 4, 2))
    assert [len(item["detection_boxes"]) for item in dataset] == [2, 0]
    assert ("query_confident" in first) == (profile == "focal")


def test_queries_that_were_not_kept_are_zero():
    first, empty = StoreDataset(golden("focal"), ["query_logits"])
    assert first["query_confident"].tolist() == [False, True, False, True]
    assert first["query_logits"].tolist() == [[[0, 0], [0.75, 2.5], [0, 0], [2, -2]]]
    assert not empty["query_confident"].any()
    assert not empty["query_logits"].any()


def test_only_what_was_named_is_read():
    assert set(StoreDataset(golden("compact"), ["bev_feats"])[0]) == {
        "sample_token",
        "timestamp_us",
        "bev_feats",
    }


def test_a_loader_with_workers_hands_the_samples_out():
    dataset = StoreDataset(golden("compact"), ["bev_feats"])
    loader = DataLoader(dataset, batch_size=None, num_workers=1)
    assert [item["sample_token"] for item in loader] == ["token-a", "token-b"]
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[1]["bev_feats"], dataset[1]["bev_feats"])


def test_an_unknown_array_is_refused_with_those_there_are():
    with pytest.raises(SpecInvalid, match=r"bev_maps.*one of pv_feats_0, bev_feats"):
        StoreDataset(golden("exact"), ["bev_maps"])


def test_there_is_no_sample_beyond_the_last():
    with pytest.raises(IndexError):
        StoreDataset(golden("exact"))[2]
