"""Lines of a training's log fit the terminal, whatever the terms."""

from __future__ import annotations

import pytest

from train.engine.log_lines import step_line

TERMS = ("pv_generation", "bev_generation", "focal", "query")
LOSSES = {
    "loss": 20.0,
    "loss_cls": 6.0,
    "d0.loss_bbox": 4.0,
    "loss_pv_generation_0": 1.0,
    "loss_pv_generation_1": 2.0,
    "loss_bev_generation": 4.0,
    "loss_focal": 1.0,
    "loss_query_logits": 1.5,
    "loss_query_boxes": 0.5,
    "lr": 2e-4,
}


def line(width: int, losses: dict = LOSSES, terms: tuple = TERMS) -> str:
    return step_line(50, 675_120, losses, terms, rate=2e-4, eta_s=4000.0, width=width)


def test_everything_where_there_is_room():
    assert line(200) == (
        "50/675120 loss 20  detection 50%  pv_generation 15%  bev_generation 20%  focal 5%  query 10%"
        "  lr 0.0002  1:06:40 left"
    )


@pytest.mark.parametrize("width", [71, 91, 100])
def test_small_terms_share_an_entry(width):
    said = line(width)
    assert len(said) <= width
    assert said.endswith("  lr 0.0002  1:06:40 left")
    assert "detection 50%" in said
    assert " other " in said


def test_without_terms_and_without_a_step():
    assert line(80, terms=()) == "50/675120 loss 20  lr 0.0002  1:06:40 left"
    assert line(80, {}) == "50/675120 loss left out  lr 0.0002  1:06:40 left"
