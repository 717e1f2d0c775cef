"""One step of the distiller: the odd samples, gradients everywhere, and what leaves the training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from mmengine.model import BaseModel
from train_cases import ROOT, TERMS, Workshop, prepare

from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from train.distillers.areas import AreaOptions
from train.engine.export import export
from train.targets import TargetsUnfit

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
    distiller = {"terms": terms, "bev_mask_ratio": case.mask_ratio}
    path = workshop.student_config("stepped", distiller=distiller, **config)
    got = prepare(workshop.options(path))
    # A teacher without confident queries would be refused.
    got.model.artist = replace(got.model.artist, options=AreaOptions(**case.areas))
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
    del batch["extras"]["areas"]  # drawn in the loader, before the change
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


def student_of(workshop: Workshop, name: str, distiller: dict) -> dict[str, torch.Tensor]:
    options = workshop.options(workshop.student_config(name, distiller=distiller))
    return prepare(options).model.student.state_dict()


@pytest.mark.parametrize(
    ("kind", "least", "starts", "keeps"),
    [
        ("released", 20, ("query_embedding.weight", "reg_branches.0.0.weight"), ("cls_branches.1.6.bias",)),
        ("head", 60, ("cls_branches.1.6.bias", "transformer.decoder.layers.0.norms.0.weight"), ("bev_emb",)),
        ("head_and_encoder", 90, ("transformer.can_bus_mlp.0.weight", "transformer.cams_embeds"), ()),
    ],
)
def test_what_the_head_starts_from(workshop, kind, least, starts, keeps):
    started = student_of(workshop, "started", {"terms": {}, "init_from_teacher": kind})
    alone = student_of(workshop, "alone", {"terms": {"query": {}}, "init_from_teacher": "none"})
    head = TargetReader(workshop.store("exact")).read_teacher_head()
    moved = {name for name in started if not torch.equal(started[name], alone[name])}
    assert len(moved) >= least
    assert all(name.startswith("pts_bbox_head.") for name in moved)
    for name in starts:
        key = f"pts_bbox_head.{name}"
        assert torch.equal(started[key], torch.from_numpy(head[key])), key
    for name in keeps:
        assert not any(key.startswith(f"pts_bbox_head.{name}") for key in moved), name


def test_a_start_alone_trains_the_student_alone(workshop):
    got = prepare(workshop.options(workshop.student_config("start", distiller={"terms": {}})))
    losses = losses_of(got.model.train(), got.batch(workshop.dataroot))
    assert all(name.endswith(("loss_cls", "loss_bbox")) for name in losses)


def test_only_the_plain_student_is_exported(workshop, tmp_path):
    got = prepared(workshop, Case("all"))
    own = set(got.model.state_dict())
    assert any(key.startswith("terms.") for key in own)
    assert any(key.startswith("bev_generator.") for key in own)
    export(got.model.student, tmp_path / "last.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]
    plain = build_detector(got.config)
    load_official(plain, tmp_path / "last.pth")
    for name, values in plain.state_dict().items():
        assert torch.equal(values, got.model.student.state_dict()[name]), name


@pytest.mark.parametrize("bev_hw", [(16, 16), (4, 4)])
@pytest.mark.parametrize("term", ["bev_heatmap", "bev_generation"])
def test_a_bev_map_is_lifted_as_often_as_it_takes(workshop, term, bev_hw):
    got = prepared(workshop, Case("bev", terms=(term,)), **{"model.pts_bbox_head.bev_hw": bev_hw}).model
    own = torch.zeros(1, 16, *bev_hw)
    if term == "bev_heatmap":
        lifted = got.terms[term].restore(own)
    else:
        lifted = got.bev_generator(own, torch.zeros(1, *bev_hw))
    assert lifted.shape == (1, 16, 16, 16)


NARROW = {
    "model.pts_bbox_head.bev_hw": (16, 16),
    "model.pts_bbox_head.embed_dims": 8,
    "model.img_neck.out_channels": 8,
}


def test_maps_of_one_size_and_other_widths_are_projected(workshop):
    distiller = {"terms": {"bev_heatmap": {}, "bev_generation": {}}, "init_from_teacher": "none"}
    model = prepare(workshop.options(workshop.student_config("narrow", distiller=distiller, **NARROW))).model
    own = torch.zeros(1, 8, 16, 16)
    assert model.terms["bev_heatmap"].restore(own).shape == (1, 16, 16, 16)
    assert model.bev_generator(own, torch.zeros(1, 16, 16)).shape == (1, 16, 16, 16)


@pytest.mark.parametrize("term", ["focal", "bev_generation"])
def test_a_raw_map_of_another_width_cannot_be_compared(workshop, term):
    distiller = {"terms": {term: {"bev_map": "raw"}}, "init_from_teacher": "none"}
    with pytest.raises(TargetsUnfit, match=f"{term}: the student's BEV map has 8 channels.*generated"):
        prepare(workshop.options(workshop.student_config("narrow", distiller=distiller, **NARROW)))


@pytest.mark.parametrize("term", ["focal", "bev_generation"])
@pytest.mark.parametrize("bev_map", ["raw", "generated"])
def test_which_bev_map_a_term_reads(workshop, term, bev_map):
    """Of the raw map the gradient is the loss's own; the generated one lies behind a generator and a mask."""
    terms = {term: {"bev_map": bev_map}}
    distiller = {"terms": terms, "bev_mask_ratio": 1.0, "areas": {"bev_margin_m": 200.0}}
    got = prepare(workshop.options(workshop.student_config("placed", distiller=distiller)))
    model, batch = got.model.train(), got.batch(workshop.dataroot)
    assert (model.bev_generator is not None) == (bev_map == "generated")
    outputs = model.student.training_outputs(batch["inputs"])
    targets = model.source.targets(batch["inputs"], batch["data_samples"], batch["extras"])
    losses = model.distillation_losses(outputs, targets, batch["extras"]["areas"])
    (grad,) = torch.autograd.grad(losses[f"loss_{term}"], outputs["bev_feats"])
    # An area as large as the map and a mask that hides all of it leave nothing to a generated map.
    assert grad.any() == (bev_map == "raw")


def test_a_queries_only_store_is_enough_for_the_focal_term_on_the_raw_map(workshop):
    store = str(workshop.store("exact", ("queries",)))
    for bev_map in ("raw", "generated"):
        path = workshop.student_config("queries", distiller={"terms": {"focal": {"bev_map": bev_map}}})
        got = prepare(workshop.options(path, cache=store))
        assert losses_of(got.model.train(), got.batch(workshop.dataroot))["loss_focal"] > 0
        if bev_map == "generated":  # of the teacher's size, which the store tells without the map
            assert got.model.bev_generator(torch.zeros(1, 16, 8, 8), torch.zeros(1, 8, 8)).shape[-1] == 16


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_every_weight_of_the_demo_detectors_learns(name):
    config = load_config(ROOT / f"configs/demo/{name}.py")
    detector = build_detector(config).train()
    height, width = config.inputs.pad_hw
    frame = {
        "images": torch.randn(1, 6, 3, height, width),
        "lidar2img": torch.eye(4).expand(1, 6, 4, 4) * 1.0,
        "can_bus": torch.zeros(1, 18),
    }
    outputs, _ = detector.encode(frame)
    sum(outputs[name].sum() for name in ("query_logits", "query_boxes")).backward()
    idle = [n for n, weight in detector.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not idle, "torchrun refuses weights without a gradient"
