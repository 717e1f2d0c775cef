"""A teacher that is confident of nothing is told before the first step."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from train_cases import FRAMES, prepare

from cache_schema.reader import TargetReader
from train.targets import TargetsUnfit, confidence
from train.targets.confidence import best_scores, check_confidence, spread, way_down

pytestmark = pytest.mark.usefixtures("one_thread")


def refused(workshop, terms, profile="exact", **areas) -> str:
    distiller = {"terms": terms, "areas": {"min_score": 0.9, **areas}}
    config = workshop.student_config("unsure", distiller=distiller)
    with pytest.raises(TargetsUnfit) as caught:
        prepare(workshop.options(config, cache=str(workshop.store(profile))))
    return str(caught.value)


@pytest.mark.parametrize("profile", ["exact", "focal"])
def test_no_confident_query_is_refused_with_the_figure(workshop, profile):
    reader = TargetReader(workshop.store(profile))
    best = max(best_scores(reader, reader.sample_tokens))
    said = refused(workshop, {"focal": {}, "bev_heatmap": {}, "bev_generation": {}}, profile)
    assert "areas.min_score 0.9" in said
    assert f"the best score is {best:.3g} in {FRAMES} samples" in said
    assert "bev_generation, focal would" in said.replace("focal, bev_generation", "bev_generation, focal")
    assert f"{way_down(reader.spec, best)}, look at" in said


def test_terms_that_do_not_ask_are_left_alone(workshop):
    for terms, areas in (({"bev_heatmap": {}}, {}), ({"bev_generation": {}}, {"queries": False})):
        distiller = {"terms": terms, "areas": {"min_score": 0.9, **areas}}
        assert prepare(workshop.options(workshop.student_config("asks-not", distiller=distiller))).model
    # The query term asks whatever makes the areas.
    assert "query would" in refused(workshop, {"query": {}}, queries=False)


@pytest.fixture
def rare(workshop, monkeypatch):
    """A store of 600 samples, two of which have a detection that is sure."""
    reader = TargetReader(workshop.store("exact"))
    asked = []

    def read(token, names):
        asked.append(token)
        return {"detection_scores": np.array([0.95] if token in ("0", "301") else [], np.float32)}

    monkeypatch.setattr(reader, "read", read)
    return reader, asked


def test_few_confident_samples_are_a_warning(rare, monkeypatch):
    reader, asked = rare
    said = []
    monkeypatch.setattr(confidence, "print_log", lambda text, *_, level: said.append((level, text)))
    tokens = [str(number) for number in range(600)]
    check_confidence(reader, tokens, ("focal",), min_score=0.1)
    ((level, text),) = said
    assert level == logging.WARNING
    assert "only 2 of 512 samples have a detection that reaches areas.min_score 0.1" in text
    assert len(asked) == 64 + 512
    check_confidence(reader, ["0"] * 9, ("focal",), min_score=0.1)
    assert len(said) == 1
    assert len(asked) == 64 + 512 + 9, "a store that is confident is not looked at twice"


def test_the_way_down_keeps_to_what_the_store_kept(workshop):
    whole, focal = (TargetReader(workshop.store(profile)).spec for profile in ("exact", "focal"))
    assert way_down(whole, 0.046).endswith("areas.min_score=0.02")
    assert way_down(focal, 0.12).endswith(f"areas.min_score={focal.focal.min_score:g}")
    assert "--focal-min-score" in way_down(focal, 0.0)


def test_samples_are_spread():
    assert spread("abcdefgh", 4) == ["a", "c", "e", "g"]
    assert spread("ab", 4) == ["a", "b"]
