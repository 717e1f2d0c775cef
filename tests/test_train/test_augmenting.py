"""Who may be shown augmented samples, and what is refused at the start."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from train_cases import make_workshop, prepare, recorded_losses

from cache_schema.reader import TargetReader
from camera3d.data.augmentation import Augmentation, BevAugmentation, ImageAugmentation
from camera3d.detectors import OutputSpec
from camera3d.detectors.protocol import BEV_MAP
from camera3d.errors import ConfigInvalid
from train.distillers.areas import AreaOptions
from train.engine.augmenting import require_augmentable, require_same_moves
from train.engine.run import distill
from train.targets import TargetsUnfit, check_areas
from train.targets.checks import reach_of_margins

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE, BEV = {"image": {"zoom": (0.8, 1.2), "rotate_deg": 5.4}}, {"bev": {"rotate_deg": 22.5}}


@pytest.fixture(scope="module")
def shop(tmp_path_factory, one_thread):
    return make_workshop(tmp_path_factory.mktemp("detr3d"), "detr3d")


def detector(*inputs: str, training: tuple[str, ...] = (), frame: str | None = None) -> SimpleNamespace:
    spec = OutputSpec(
        name="bev",
        role=BEV_MAP,
        shape=(1, 2, 2),
        dimension_names=("channel", "y", "x"),
        extent_m=(-1.0,) * 3 + (1.0,) * 3,
        frame=frame,
    )
    specs = () if frame is None else (spec,)
    return SimpleNamespace(inputs=inputs, training_inputs=training, output_specs=lambda image_hw: specs)


def config(**augmentation: dict) -> Config:
    return Config({"augmentation": augmentation, "inputs": {"pad_hw": (8, 8)}})


MOVES_EGO = {"training": ("bev_transform",), "frame": "ego"}


@pytest.mark.parametrize(
    "shown",
    [
        detector("images", "lidar2img"),
        detector("images", "lidar2img", frame="lidar"),
        detector("images", "image_transform", "intrinsics", "cam2ego", "lidar2ego", **MOVES_EGO),
    ],
)
def test_what_reads_all_that_moves_is_shown_it(shown):
    require_augmentable(config(**IMAGE, **BEV), shown)
    require_same_moves(config(**IMAGE, **BEV), shown, shown)


@pytest.mark.parametrize(
    ("augmentation", "refused", "says"),
    [
        (
            IMAGE,
            detector("images"),
            "augmentation.image: SimpleNamespace reads none of lidar2img, image_transform",
        ),
        (
            BEV,
            detector("images", "image_transform"),
            "augmentation.bev: SimpleNamespace does not read lidar2img",
        ),
        (BEV, detector("images", "lidar2img", "can_bus"), "reads can_bus, which would stay as it is"),
        (BEV, detector("images", "lidar2img", "lidar2ego", frame="ego"), "reads lidar2ego, which would stay"),
        (
            BEV,
            detector("images", "lidar2img", training=("bev_transform",), frame="lidar"),
            "its BEV maps do not all lie in the ego frame",
        ),
    ],
)
def test_what_does_not_is_refused(augmentation, refused, says):
    require_augmentable(config(), refused)
    with pytest.raises(ConfigInvalid) as error:
        require_augmentable(config(**augmentation), refused)
    assert says in str(error.value)
    assert "augmentation.bev=None" in str(error.value)


def test_a_teacher_of_another_frame_cannot_be_shown_the_students_samples():
    student, teacher = detector("images", "lidar2img"), detector("images", "lidar2img", **MOVES_EGO)
    with pytest.raises(ConfigInvalid, match="of student and teacher one reads it"):
        require_same_moves(config(**BEV), student, teacher)
    require_same_moves(config(**IMAGE), student, teacher)


def test_a_carried_bev_map_moves_with_pictures_alone(workshop):
    """The motion of the CAN bus would be that of a ground which did not turn."""
    still = workshop.student_config("image", augmentation=IMAGE)
    assert prepare(workshop.options(still)).transforms
    moved = workshop.student_config("bev", augmentation=IMAGE | BEV)
    with pytest.raises(ConfigInvalid, match=r"augmentation\.bev: BEVFormer reads can_bus"):
        prepare(workshop.options(moved))


def test_queries_that_stay_cannot_be_compared_with_objects_that_move(shop):
    path = shop.student_config("moved", distiller={"terms": {"query": {}, "focal": {}}}, augmentation=BEV)
    with pytest.raises(TargetsUnfit, match=r"query term: under augmentation\.bev .* Leave the term"):
        prepare(shop.options(path))
    image = shop.student_config("image", distiller={"terms": {"query": {}}}, augmentation=IMAGE)
    assert prepare(shop.options(image)).transforms


def test_a_student_learns_from_moved_image_maps_and_points(shop, tmp_path):
    terms = {"pv_divergence": {}, "pv_generation": {}, "focal": {}}
    options = {"distiller": {"terms": terms}, "augmentation": IMAGE | BEV, "train_cfg.max_epochs": 1}
    with recorded_losses() as steps:
        distill(shop.options(shop.student_config("augmented", **options), tmp_path))
    assert len(steps) == 6
    for losses in steps:
        assert all(np.isfinite(value) for value in losses.values())
        assert losses["loss_pv_divergence_0"] > 0
    assert any(losses["loss_focal"] > 0 for losses in steps)
    assert any(losses["loss_pv_generation_0"] > 0 for losses in steps)


def test_a_focal_store_must_have_kept_what_moved_maps_are_read_from(workshop):
    spec = TargetReader(workshop.store("focal")).spec
    areas, moves = vars(AreaOptions()), Augmentation(image=ImageAugmentation(zoom=(0.8, 1.0)))
    check_areas(spec, areas)
    with pytest.raises(TargetsUnfit, match=r"pv_margin_cells: 2\.25, .*\n(.*\n)*.* augmentation counts in"):
        check_areas(spec, areas, augmentation=moves)
    wider = replace(spec, focal=replace(spec.focal, areas={**spec.focal.areas, "pv_margin_cells": 2.5}))
    check_areas(wider, areas, augmentation=moves)
    narrow = replace(spec, focal=replace(spec.focal, areas={**spec.focal.areas, "bev_margin_m": 15.0}))
    with pytest.raises(TargetsUnfit, match="its heatmap reaches 16 m"):
        check_areas(narrow, areas, heatmap=True, augmentation=Augmentation(bev=BevAugmentation()))


def test_reach_of_margins():
    margins = {"bev_margin_m": 0.5, "pv_margin_cells": 1.0, "at_most": 3}
    still = {"bev_margin_m": 0.5, "pv_margin_cells": 1.0}
    assert reach_of_margins(margins, None, 0.8) == still
    both = Augmentation(
        image=ImageAugmentation(zoom=(0.5, 2.0), rotate_deg=90), bev=BevAugmentation(scale=(0.8, 1.0))
    )
    found = reach_of_margins(margins, both, 0.8)
    assert found["bev_margin_m"] == pytest.approx(0.625 + 1.2)
    assert found["pv_margin_cells"] == pytest.approx(2 * math.sqrt(2) + 1)
