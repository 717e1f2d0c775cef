"""DETR3D through both stages: what its store holds, what a student learns from it, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from train_cases import SPLIT, VERSION, make_workshop, prepare, recorded_losses

from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, StreamingFrames, load_or_build_index
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from train.engine.run import distill
from train.targets import TargetsUnfit

pytestmark = pytest.mark.usefixtures("one_thread")
TERMS = {"pv_generation": {}, "focal": {}, "query": {}}
READS = ("image_points", "image_visible", "image_weights", "focal_feats")


@pytest.fixture(scope="module")
def shop(tmp_path_factory, one_thread):
    return make_workshop(tmp_path_factory.mktemp("detr3d"), "detr3d")


def test_the_store_holds_what_the_teacher_saw(shop):
    reader = TargetReader(shop.store("exact"))
    names = {array.name: array.role for array in reader.spec.arrays}
    assert set(READS) <= {name for name, role in names.items() if role == "query"}
    assert not {"bev_feats", "can_bus"} & set(names)
    detector = build_detector(load_config(shop.teacher_config))
    load_official(detector, shop.checkpoint)
    index = load_or_build_index(shop.dataroot, VERSION, SPLIT)
    pipeline = ImagePipeline.from_config(load_config(shop.teacher_config).inputs)
    item = StreamingFrames(index, pipeline, shop.dataroot)[1]
    with torch.inference_mode():
        outputs, state = detector.encode({name: item[name][None] for name in detector.inputs})
    assert state is None
    stored = reader[item["sample_token"]]
    for name, values in outputs.items():
        np.testing.assert_array_equal(stored[name], values[0].numpy().astype(stored[name].dtype), name)
    assert stored["image_visible"].dtype == bool


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_every_profile_teaches(shop, profile, tmp_path):
    config = shop.student_config(f"of-{profile}", distiller={"terms": TERMS})
    with recorded_losses() as steps:
        distill(shop.options(config, tmp_path, cache=str(shop.store(profile))))
    assert len(steps) == 12
    wanted = {"loss_focal", "loss_query_logits", "loss_query_boxes"}
    wanted |= {f"loss_pv_generation_{level}" for level in range(3)}
    for losses in steps:
        assert wanted <= set(losses)
        assert all(np.isfinite(value) for value in losses.values())
        assert losses["loss_focal"] > 0


def test_the_focal_term_pulls_the_image_maps(shop, tmp_path):
    """So strong that nothing else counts, on the same six frames in both epochs."""
    strong = {"optim_wrapper.optimizer.lr": 3e-3, "distort": False, "model.grid_mask_prob": 0.0}
    config = shop.student_config("strong", distiller={"terms": {"focal": {"weight": 1000.0}}}, **strong)
    with recorded_losses() as steps:
        distill(shop.options(config, tmp_path))
    first, second = (sum(losses["loss_focal"] for losses in epoch) for epoch in (steps[:6], steps[6:]))
    assert 0 < second < 0.9 * first


def test_cache_and_live_give_the_same_losses(shop, tmp_path):
    config = shop.student_config("sourced", distiller={"terms": TERMS})
    found = {}
    for source in ("cache", "live"):
        with recorded_losses() as found[source]:
            distill(shop.options(config, tmp_path / source, teacher_source=source))
    for cached, live in zip(found["cache"], found["live"], strict=True):
        assert cached == pytest.approx(live, rel=1e-3)


def test_the_teachers_own_maps_have_no_focal_loss(shop):
    """A student that is the teacher reads what it read, to the stored precision."""
    config = load_config(shop.teacher_config)
    config.merge_from_dict({"teacher": shop.teacher_config.name, "distiller": {"terms": {"focal": {}}}})
    config.distort = False
    config.dump(shop.folder / "itself.py")
    got = prepare(shop.options(shop.folder / "itself.py"))
    load_official(got.model.student, shop.checkpoint)
    losses = got.model.eval()(**got.batch(shop.dataroot), mode="loss")
    reader = TargetReader(shop.store("exact"))
    scale = max(
        np.square(reader[t]["focal_feats"].astype(float)).sum(-1).mean() for t in reader.sample_tokens
    )
    assert losses["loss_focal"] < 1e-5 * scale


@pytest.mark.parametrize("kind", ["released", "head"])
def test_what_the_head_starts_from(shop, kind):
    config = shop.student_config("started", distiller={"terms": {}, "init_from_teacher": kind})
    weights = prepare(shop.options(config)).model.student.state_dict()
    head = TargetReader(shop.store("exact")).read_teacher_head()
    equal = {key for key, values in head.items() if torch.equal(weights[key], torch.from_numpy(values))}
    decoder = {key for key in head if key.startswith("pts_bbox_head.transformer.decoder.")}
    assert "pts_bbox_head.query_embedding.weight" in equal
    assert (decoder <= equal) == (kind == "head")


@pytest.mark.parametrize(
    ("distiller", "says"),
    [
        ({"terms": {"bev_generation": {}}}, "bev_generation: compares BEV maps"),
        ({"terms": {}, "init_from_teacher": "head_and_encoder"}, "DETR3D has no encoder"),
    ],
)
def test_what_a_detector_without_bev_cannot_do(shop, distiller, says):
    with pytest.raises(TargetsUnfit, match=says):
        prepare(shop.options(shop.student_config("refused", distiller=distiller)))


def test_another_family_is_no_teacher_of_its_queries(shop, workshop):
    config = workshop.student_config("crossed", distiller={"terms": TERMS}, **{"teacher": None})
    with pytest.raises(TargetsUnfit, match="the teacher has no BEV map"):
        prepare(workshop.options(config, cache=str(shop.store("exact")), dataroot=str(shop.dataroot)))
