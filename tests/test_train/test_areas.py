"""Areas are drawn where the data is read: those of a teacher at hand, and only those that a term asks for."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_flatten
from train_cases import TERMS, prepare

from train.losses.regions import Region, Stacked


@pytest.mark.parametrize("profile", ["exact", "focal"])
def test_a_worker_draws_what_the_training_would(workshop, profile):
    terms = {name: {} for name in TERMS if profile == "exact" or name != "pv_divergence"}
    path = workshop.student_config("drawn", distiller={"terms": terms})
    got = prepare(workshop.options(path, cache=str(workshop.store(profile))))
    batch = got.batch(workshop.dataroot, batch_size=2)
    targets = got.model.source.targets(batch["inputs"], batch["data_samples"], batch["extras"])
    drawn = batch["extras"]["areas"]
    here = got.model.areas(targets, batch["inputs"], batch["data_samples"], {})
    ours, wanted = tree_flatten(drawn)[0], tree_flatten(here)[0]
    assert len(ours) == len(wanted) > 10
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert all(areas.confidence.chosen.numel() and areas.bev.weight.any() for areas in drawn)


def test_nothing_is_drawn_that_no_term_looks_at(workshop):
    path = workshop.student_config("few", distiller={"terms": {"bev_heatmap": {}}})
    (areas, *_) = prepare(workshop.options(path)).batch(workshop.dataroot)["extras"]["areas"]
    assert areas.heatmap.weight.max() == 1
    assert (areas.hidden_bev, areas.bev, areas.images, areas.confidence) == (None, None, (), None)


def test_regions_of_a_batch_count_through_it():
    weights = torch.zeros(3, 2, 2, 4)
    weights[0, 1, 0, 3], weights[2, 0, 1, 1], weights[2, 1, 1, 2] = 0.5, 1, 2
    stacked = Stacked.of([Region.of(weight) for weight in weights])
    assert [place.tolist() for place in stacked.places()] == [[0, 2, 2], [1, 0, 1], [0, 1, 1], [3, 1, 2]]
    assert stacked.sample.tolist() == [0, 2, 2]
    assert stacked.windows == ((1, 0, 1, 3, 4), (4, 1, 2, 1, 2), (5, 1, 2, 2, 3))
    assert stacked.weight[stacked.places()].tolist() == [0.5, 1, 2]


def test_regions_of_an_empty_batch():
    stacked = Stacked.of(torch.zeros(0, 2, 4))
    assert (len(stacked.chosen), stacked.windows, stacked.weight.shape) == (0, (), (0, 2, 4))
