"""The unreleased terms against numbers worked out by hand and against the teacher's decoder."""

from __future__ import annotations

import math

import detr3d_cases
import pytest
import torch
from torch import nn

from camera3d.detectors.query_based.deformable import ObjectDeformableAttention
from train.losses import (
    AreaL2,
    ChannelWiseDivergence,
    FocalSampling,
    ImageFocalSampling,
    MaskedGeneration,
    MaskedGenerator,
    QueryAlignment,
)


def test_area_l2_by_hand():
    student, teacher = torch.zeros(1, 2, 2, 1, 3), torch.zeros(1, 2, 2, 1, 3)
    student[0, 0, :, 0, 0] = torch.tensor([3.0, 1.0])  # sum of squares 10
    student[0, 1, :, 0, 2] = torch.tensor([1.0, 1.0])  # sum of squares 2
    student[0, 1, :, 0, 1] = 100.0  # outside the area
    area = torch.zeros(1, 2, 1, 3)
    area[0, 0, 0, 0], area[0, 1, 0, 2] = 1, 3
    assert AreaL2(weight=2.0)(student, teacher, area) == 2 * (1 * 10 + 3 * 2) / 4
    assert AreaL2()(student, teacher, area > 0) == (10 + 2) / 2


def test_area_l2_as_a_sum():
    student, teacher = torch.zeros(2, 1, 2, 1, 3), torch.zeros(2, 1, 2, 1, 3)
    student[0, 0, :, 0, 0] = torch.tensor([3.0, 1.0])
    area = torch.zeros(2, 1, 1, 3, dtype=torch.bool)
    area[0, 0, 0, :2] = True
    # Two cells, not divided by two; two samples, one of them without an area.
    assert AreaL2(weight=2.0, reduction="sum")(student, teacher, area) == 2 * 10 / 2
    with pytest.raises(ValueError, match="reduction: expected mean or sum, got 'none'"):
        AreaL2(reduction="none")


def test_divergence_over_some_positions():
    """As if the map had these positions alone; nothing outside gets a gradient, an empty image gives zero."""
    rng = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 1, 3, 4, 5, generator=rng) for _ in range(2))
    student.requires_grad_(True)
    where = torch.zeros(2, 1, 4, 5, dtype=torch.bool)
    where[0, 0, 1:3, 2:5] = True
    divergence = ChannelWiseDivergence()
    loss = divergence(student, teacher, where)
    (gradient,) = torch.autograd.grad(loss, student)
    cut = student[:1, :, :, 1:3, 2:5].detach().requires_grad_(True)
    wanted = divergence(cut, teacher[:1, :, :, 1:3, 2:5])
    (inside,) = torch.autograd.grad(wanted, cut)
    torch.testing.assert_close(loss, wanted / 2)
    torch.testing.assert_close(gradient[:1, :, :, 1:3, 2:5], inside / 2)
    assert not gradient[:1].masked_fill(where[:1, :, None], 0).any()
    assert not gradient[1].any()
    torch.testing.assert_close(
        divergence(student, teacher, torch.ones_like(where)), divergence(student, teacher)
    )


class Seen(nn.Module):
    """Stands in for the convolutions of a generator and remembers what they were given."""

    def forward(self, maps):
        self.maps = maps
        return maps


def generator(mask_ratio: float) -> tuple[MaskedGenerator, Seen]:
    made = MaskedGenerator(channels=1, mask_ratio=mask_ratio)
    made.layers = Seen()
    return made, made.layers


def test_mask_hides_a_share_of_the_area_and_nothing_else():
    masked, seen = generator(0.3)
    area = torch.zeros(2, 100, 100)
    area[:, 20:80] = 1
    masked(torch.ones(2, 1, 100, 100), area, torch.Generator().manual_seed(0))
    assert (seen.maps[:, 0][area == 0] == 1).all()
    hidden = (seen.maps[:, 0][area > 0] == 0).float().mean().item()
    assert hidden == pytest.approx(0.3, abs=0.02)  # of 12,000 cells: five standard deviations


@pytest.mark.parametrize(("ratio", "value"), [(0.0, 1.0), (1.0, 0.0)])
def test_extreme_ratios(ratio, value):
    masked, seen = generator(ratio)
    masked(torch.ones(1, 1, 8, 8), torch.ones(1, 8, 8))
    assert (seen.maps == value).all()


def test_ratio_outside_is_refused():
    with pytest.raises(ValueError, match="mask_ratio: expected a number in"):
        MaskedGenerator(channels=1, mask_ratio=1.5)


def test_mask_is_seeded():
    masked, seen = generator(0.5)
    maps, area = torch.ones(1, 1, 16, 16), torch.ones(1, 16, 16)
    pictures = []
    for seed in (0, 0, 1):
        masked(maps, area, torch.Generator().manual_seed(seed))
        pictures.append(seen.maps.clone())
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])


@pytest.mark.parametrize("skip_empty", [False, True])
def test_all_masked_map(skip_empty):
    """Nothing of the student is left to see: a finite loss, all of whose gradient goes to the generator."""
    term = MaskedGeneration(
        generator=MaskedGenerator(channels=2, mask_ratio=1.0), distance=AreaL2(), skip_empty=skip_empty
    )
    student = torch.randn(1, 2, 2, 5, 5, requires_grad=True)
    loss, _ = term(student, torch.randn(1, 2, 2, 5, 5), torch.ones(1, 2, 5, 5))
    loss.backward()
    assert loss > 0
    assert (student.grad == 0).all()
    assert all(p.grad.isfinite().all() for p in term.parameters())
    assert term.generator.layers[-1].bias.grad.abs().sum() > 0


@pytest.mark.parametrize("doublings", [0, 1, 2])
def test_hidden_cells_are_hidden_from_every_generated_cell(doublings):
    """Whatever stands in a hidden cell, the generated map is the same, and no gradient reaches the cell."""
    torch.manual_seed(0)
    made = MaskedGenerator(channels=3, teacher_channels=5, doublings=doublings, mask_ratio=1.0)
    area = torch.zeros(2, 8, 6, dtype=torch.bool)
    area[0, 2:4, 1:3] = area[1, 7, 5] = True
    maps = torch.randn(2, 3, 8, 6, requires_grad=True)
    generated = made(maps, area)
    assert generated.shape == (2, 5, 8 << doublings, 6 << doublings)
    other = maps.detach() + 100 * torch.randn(2, 3, 8, 6) * area[:, None]
    assert torch.equal(made(other, area), generated)
    generated.square().sum().backward()
    reached = maps.grad.abs().sum(1) > 0
    assert torch.equal(reached, ~area)


@pytest.mark.parametrize("doublings", [0, 1, 2])
def test_a_generator_starts_with_the_spread_of_its_input(doublings):
    """Values and gradients keep their size: with torch's own start the term was a tenth as strong."""
    torch.manual_seed(0)
    made = MaskedGenerator(channels=48, doublings=doublings, mask_ratio=0.0)
    maps = torch.randn(2, 48, 16, 16, requires_grad=True)
    generated = made(maps, torch.ones(2, 16, 16))
    assert 0.6 < generated.detach().std() < 1.5
    generated.backward(torch.randn_like(generated))
    # A cell of the small map answers for four of each doubling.
    assert 0.5 * 2**doublings < maps.grad.std() < 1.6 * 2**doublings


def test_generating_only_around_areas_changes_no_loss():
    """Areas inside, in a corner, over a whole side, and none: losses and all gradients stay the same."""
    torch.manual_seed(0)
    made = MaskedGenerator(channels=2, mask_ratio=0.5)
    student = torch.randn(2, 3, 2, 9, 12, requires_grad=True)
    teacher, area = torch.randn(2, 3, 2, 9, 12), torch.zeros(2, 3, 9, 12)
    area[0, 1, 4:6, 5:8] = area[0, 2, :2, :3] = area[1, 0, 8, :] = area[1, 2, 3, 3] = area[1, 2, 7, 11] = 1
    found = []
    for skip_empty in (False, True):
        term = MaskedGeneration(generator=made, distance=AreaL2(), skip_empty=skip_empty)
        loss, maps = term(student, teacher, area, torch.Generator().manual_seed(3))
        found.append((loss, maps * (area != 0)[:, :, None], *gradients(loss, [student, *made.parameters()])))
    torch.testing.assert_close(found[1], found[0])
    assert (maps[0, 0] == 0).all()
    assert (maps[1, 2, :, :3] == 0).all()


def gradients(loss: torch.Tensor, of: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, of, retain_graph=True)


def test_only_windows_are_generated():
    """Every layer sees the windows with two cells around them, and no image without an area."""
    made = MaskedGenerator(channels=2)
    shapes = []
    made.layers[0].register_forward_pre_hook(lambda layer, given: shapes.append(tuple(given[0].shape[-2:])))
    area = torch.zeros(1, 3, 20, 30)
    area[0, 1, 5:9, 10:17] = area[0, 2, 0, 29] = 1
    maps = torch.randn(1, 3, 2, 20, 30)
    MaskedGeneration(generator=made, distance=AreaL2(), skip_empty=True)(maps, maps, area)
    assert shapes == [(8, 11), (3, 3)]


@pytest.fixture
def decoder():
    """Two layers of the decoder's attention over a teacher map, and what they did: inputs of the term."""
    torch.manual_seed(0)
    layers = []
    for _ in range(2):
        layer = ObjectDeformableAttention(embed_dims=8, num_heads=4, num_points=3, dropout=0.0)
        layer.init_weights()
        nn.init.normal_(layer.value_proj.bias)
        nn.init.normal_(layer.attention_weights.weight)
        layers.append(layer)
    bev = torch.randn(2, 8, 6, 9)
    query, position, reference = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.rand(2, 5, 2)
    traces = []
    with torch.no_grad():
        for layer in layers:
            traces.append(layer(query, position, bev.flatten(2).transpose(1, 2), reference, (6, 9))[1:])
    locations, weights, read = (torch.stack(items, dim=1) for items in zip(*traces, strict=True))
    return [layer.value_proj.requires_grad_(False) for layer in layers], bev, locations, weights, read


def test_focal_term_reads_like_the_decoder(decoder):
    """On the teacher's own map the read-outs are the stored ones, points beyond the border included."""
    projections, bev, locations, weights, read = decoder
    assert ((locations < 0) | (locations > 1)).any()
    term = FocalSampling(value_projections=projections)
    confidence = torch.rand(2, 5)
    assert term(bev, locations, weights, read, confidence) < 1e-12
    # A difference of 3 in each of 8 channels of every read-out is a loss of 72, whatever the confidence.
    assert term(bev, locations, weights, read + 3, confidence).item() == pytest.approx(72, rel=1e-5)


def test_focal_term_weighs_queries_by_confidence(decoder):
    projections, bev, locations, weights, read = decoder
    read[:, :, 0] += 1
    read[:, :, 1] += 2
    read[:, :, 2] += 100
    confidence = torch.tensor([[3.0, 1.0, 0.0, 0.0, 0.0]]).expand(2, 5)
    loss = FocalSampling(value_projections=projections, weight=2.0)(bev, locations, weights, read, confidence)
    assert loss.item() == pytest.approx(2 * 8 * (3 * 1 + 1 * 4) / 4, rel=1e-5)


@torch.no_grad()
def test_focal_term_on_images_reads_like_the_decoder():
    """On the teacher's own maps the read-outs are the stored ones, of points that no camera sees too."""
    outputs, _ = detr3d_cases.shrunk_detector().encode(
        detr3d_cases.frame_inputs(detr3d_cases.golden("tiny"), "f0")
    )
    maps = [values for name, values in outputs.items() if name.startswith("pv_feats")]
    reads = [outputs[name] for name in ("image_points", "image_visible", "image_weights", "focal_feats")]
    assert not outputs["image_visible"].any(-1).all()
    confidence = torch.rand(1, outputs["query_logits"].shape[2])
    term = ImageFocalSampling(weight=2.0)
    scale = reads[-1].square().sum(-1).mean()
    assert term(maps, *reads, confidence) < 1e-8 * scale
    reads[-1] = reads[-1] + 3
    assert term(maps, *reads, confidence).item() == pytest.approx(2 * 9 * reads[-1].shape[-1], rel=1e-4)


def test_query_alignment_by_hand():
    student_logits, teacher_logits = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
    teacher_logits[0, 0, 0] = math.log(3)  # p = 3/4 against 1/2
    student_boxes, teacher_boxes = torch.zeros(1, 1, 2, 10), torch.zeros(1, 1, 2, 10)
    student_boxes[0, 0, 1, 0], student_boxes[0, 0, 1, 9] = 2.0, 5.0
    confidence = torch.tensor([[0.6, 0.2]])
    logits, boxes = QueryAlignment(logit_weight=1.0, box_weight=1.0)(
        student_logits, student_boxes, teacher_logits, teacher_boxes, confidence
    )
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert logits.item() == pytest.approx(0.75 * divergence, rel=1e-5)
    assert boxes.item() == pytest.approx(0.25 * (2.0 + 0.2 * 5.0), rel=1e-6)


def test_query_alignment_of_boxes_on_pictures():
    logits, boxes = torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 4)
    moved = boxes + torch.tensor([0.1, 0.0, 0.2, 0.1])
    _, distance = QueryAlignment(box_weight=5.0, code_weights=(1.0,) * 4)(
        logits, moved, logits, boxes, torch.tensor([[0.5, 0.0]])
    )
    assert distance.item() == pytest.approx(5 * 0.4)
