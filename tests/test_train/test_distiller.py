"""One step of the distiller: the odd samples, gradients everywhere, and what leaves the training."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from mmengine.model import BaseModel
from train_cases import ROOT, TERMS, Workshop, prepare

from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from train.engine.export import export

pytestmark = pytest.mark.usefixtures("one_thread")
FROM_AREAS = ("loss_bev_generation", *(f"loss_pv_generation_{level}" for level in range(3)))
FROM_QUERIES = ("loss_focal", "loss_query_logits", "loss_query_boxes")


def without_ground_truth(batch: dict) -> None:
    """No annotated box in any sample."""
    for sample in batch["data_samples"]:
        sample.gt_instances_3d = sample.gt_instances_3d[:0]


def behind_every_camera(batch: dict) -> None:
    """Cameras that see nothing: every point lies behind them."""
    batch["inputs"]["lidar2img"] = torch.zeros_like(batch["inputs"]["lidar2img"])
    batch["inputs"]["lidar2img"][..., 2, 3] = -1.0


@dataclass(frozen=True)
class Case:
    """A change of the distiller or the batch, and the terms that must then be zero or must not."""

    id: str
    zero: tuple[str, ...] = ()
    areas: dict = field(default_factory=dict)
    mask_ratio: float = 0.5
    change: object = None
    terms: tuple[str, ...] = tuple(TERMS)


CASES = [
    Case("as it comes"),
    Case("no ground truth", ("loss_bev_heatmap",), change=without_ground_truth),
    Case("no confident query", FROM_QUERIES, areas={"min_score": 1.0}),
    Case(
        "nothing to look at",
        ("loss_bev_heatmap", *FROM_QUERIES, *FROM_AREAS),
        areas={"min_score": 1.0},
        change=without_ground_truth,
    ),
    Case("outside every camera", FROM_AREAS[1:], change=behind_every_camera),
    Case("everything hidden", mask_ratio=1.0),
    Case("areas of queries alone", areas={"ground_truth": False}),
    Case("areas of ground truth alone", areas={"queries": False}),
    *(Case(f"{term} alone", terms=(term,)) for term in TERMS),
]


def prepared(workshop: Workshop, case: Case, **config):
    terms = {name: {} for name in case.terms}
    if "pv_generation" in terms:
        terms["pv_generation"] = {"mask_ratio": case.mask_ratio}
    distiller = {"terms": terms, "areas": case.areas, "bev_mask_ratio": case.mask_ratio}
    path = workshop.student_config("stepped", distiller=distiller, **config)
    got = prepare(workshop.options(path))
    got.model.train()
    return got


def losses_of(model: BaseModel, batch: dict) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return model(**batch, mode="loss")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_step(workshop, case):
    got = prepared(workshop, case, **{"model.grid_mask_prob": 0.0})
    batch = got.batch(workshop.dataroot, batch_size=2)
    if case.change:
        case.change(batch)
    model = got.model
    losses = losses_of(model, batch)
    total, _ = model.parse_losses(losses)
    total.backward()
    for name, loss in losses.items():
        assert torch.isfinite(loss), name
        distils = not name.endswith(("loss_cls", "loss_bbox"))
        if distils:
            assert (loss == 0) == (name in case.zero), (name, float(loss))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} takes no part: data-parallel training refuses that"
            assert torch.isfinite(parameter.grad).all(), name


def test_the_teachers_projections_stay_as_they_are(workshop):
    got = prepared(workshop, Case("all"))
    model = got.model
    frozen = {n: p for n, p in model.named_parameters() if n.startswith("terms.focal.")}
    assert len(frozen) == 4
    assert not any(p.requires_grad for p in frozen.values())
    head = TargetReader(workshop.store("exact")).read_teacher_head()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    total, _ = model.parse_losses(losses_of(model, got.batch(workshop.dataroot)))
    total.backward()
    optimiser.step()
    moved = {n for n, parameter in model.named_parameters() if not torch.equal(parameter, before[n])}
    assert not moved & set(frozen)
    assert len(moved) > 0.8 * len(before)
    for layer in range(2):
        key = f"pts_bbox_head.transformer.decoder.layers.{layer}.attentions.1.value_proj.weight"
        projection = model.terms["focal"].sampling.value_projections[layer]
        assert torch.equal(projection.weight, torch.from_numpy(head[key]))


def test_bfloat16_is_finite_and_near_float32(workshop):
    # Dropout and masks would draw alike in both, but rounding may turn an assignment; the terms only.
    plain = {"model.grid_mask_prob": 0.0, "model.pts_bbox_head.dropout": 0.0}
    got = prepared(workshop, Case("all"), **plain)
    batch = got.batch(workshop.dataroot, batch_size=2)
    exact = losses_of(got.model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = losses_of(got.model, batch)
    got.model.parse_losses(rounded)[0].backward()
    for name, loss in rounded.items():
        assert torch.isfinite(loss), name
        if "pv" in name or "bev" in name or name in FROM_QUERIES:
            # 8 bits of mantissa through some fifty layers.
            assert loss.item() == pytest.approx(exact[name].item(), rel=0.1), name
    gradients = [p.grad for p in got.model.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("copied", [True, False])
def test_the_head_starts_from_the_teachers(workshop, copied):
    distiller = {"terms": {"query": {}}, "init_head_from_teacher": copied}
    student = prepare(workshop.options(workshop.student_config("headed", distiller=distiller))).model.student
    alone = prepare(
        workshop.options(
            workshop.student_config("headless", distiller=distiller | {"init_head_from_teacher": False})
        )
    ).model.student.state_dict()
    head = TargetReader(workshop.store("exact")).read_teacher_head()
    assert len(head) > 40
    assert set(head) == set(student.distillation_head())
    for name, values in student.state_dict().items():
        wanted = torch.from_numpy(head[name]) if copied and name in head else alone[name]
        assert torch.equal(values, wanted), name


def test_only_the_plain_student_is_exported(workshop, tmp_path):
    got = prepared(workshop, Case("all"))
    own = set(got.model.state_dict())
    assert any(key.startswith("terms.") for key in own)
    assert any(key.startswith("restore.") for key in own)
    export(got.model.student, tmp_path / "last.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]
    plain = build_detector(got.config)
    load_official(plain, tmp_path / "last.pth")
    for name, values in plain.state_dict().items():
        assert torch.equal(values, got.model.student.state_dict()[name]), name


@pytest.mark.parametrize("bev_hw", [(16, 16), (4, 4)])
def test_a_bev_map_is_lifted_as_often_as_it_takes(workshop, bev_hw):
    got = prepared(
        workshop, Case("bev", terms=("bev_heatmap",)), **{"model.pts_bbox_head.bev_hw": bev_hw}
    ).model
    assert got.restore(torch.zeros(1, 16, *bev_hw)).shape == (1, 16, 16, 16)


def test_maps_of_one_size_and_other_widths_are_projected(workshop):
    narrow = {
        "model.pts_bbox_head.bev_hw": (16, 16),
        "model.pts_bbox_head.embed_dims": 8,
        "model.img_neck.out_channels": 8,
    }
    distiller = {"terms": {"bev_heatmap": {}}, "init_head_from_teacher": False}
    model = prepare(workshop.options(workshop.student_config("narrow", distiller=distiller, **narrow))).model
    assert model.restore(torch.zeros(1, 8, 16, 16)).shape == (1, 16, 16, 16)


def test_the_focal_term_can_read_the_restored_map(workshop):
    path = workshop.student_config("restored", distiller={"terms": {"focal": {"bev_map": "restored"}}})
    got = prepare(workshop.options(path))
    assert got.model.bev_generator is None
    losses = losses_of(got.model.train(), got.batch(workshop.dataroot))
    assert losses["loss_focal"] > 0
    losses["loss_focal"].backward()
    assert all(weight.grad is not None for weight in got.model.restore.parameters())


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_every_weight_of_the_demo_detectors_learns(name):
    config = load_config(ROOT / f"configs/demo/{name}.py")
    detector = build_detector(config).train()
    height, width = config.inputs.pad_hw
    outputs = detector.encode(
        torch.randn(1, 6, 3, height, width), torch.eye(4).expand(1, 6, 4, 4) * 1.0, torch.zeros(1, 18)
    )
    sum(values.sum() for values in (outputs.query_logits, outputs.query_boxes)).backward()
    idle = [n for n, weight in detector.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not idle, "torchrun refuses weights without a gradient"
