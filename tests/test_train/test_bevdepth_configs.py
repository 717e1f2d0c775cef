"""The shipped distillations of BEVDepth: every term finds what it compares, and the head can start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from camera3d.errors import ConfigInvalid
from train.distillers.config import DistillerConfig
from train.distillers.fit import compared_maps, start_weights
from train.targets import TargetsUnfit
from train.targets.description import TeacherDescription

CONFIGS = Path(__file__).parents[2] / "configs"


def parts(name: str):
    """The config, what it chooses, its student and its teacher's description; no weight is drawn."""
    path = CONFIGS / "distill" / name
    config = Config.fromfile(path)
    teacher_config = Config.fromfile(path.parent / config.teacher)
    with torch.device("meta"):
        student, teacher = build_detector(config), build_detector(teacher_config)
    return config, DistillerConfig.from_config(config), student, described(teacher, teacher_config)


def described(teacher, config: Config) -> TeacherDescription:
    """As `TeacherDescription.of_detector`, with weights that are nowhere."""
    specs = {spec.name: spec for spec in teacher.output_specs(tuple(config.inputs.pad_hw))}
    return TeacherDescription(
        name=str(config.filename),
        profile="exact",
        specs=specs,
        stored=frozenset(specs),
        image_scale=config.inputs.scale,
        head=teacher.head_weights(),
    )


@pytest.mark.parametrize(
    ("name", "levels"), [("bevdepth_r101_to_r50.py", 0), ("bevdepth_r50_da_to_r50.py", 1)]
)
def test_student_and_teacher_go_together(name, levels):
    config, chosen, student, teacher = parts(name)
    maps = compared_maps(config, chosen, student.output_specs(tuple(config.inputs.pad_hw)), teacher)
    assert len(maps.levels) == levels
    assert maps.bev.student.name == maps.bev.teacher.name == "bev_feats"
    assert maps.bev.student.frame == "ego"
    assert maps.bev.doublings == 0
    start = start_weights(config, chosen, student, teacher)
    assert len(start) > 300
    assert all(key.startswith("head.") for key in start)


def test_maps_of_larger_images_are_no_image_targets():
    config, _, student, teacher = parts("bevdepth_r101_to_r50.py")
    config.distiller.terms.pv_generation = {}
    chosen = DistillerConfig.from_config(config)
    with pytest.raises(TargetsUnfit, match="cannot follow another scale or crop"):
        compared_maps(config, chosen, student.output_specs(tuple(config.inputs.pad_hw)), teacher)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"model.criterion": {"depth_wait": 0}},
            "model.criterion.depth_wait: unknown; did you mean depth_weight?",
        ),
        ({"model.decode_rule": {"max_cells": 0.5}}, "model.decode_rule.max_cells: expected a whole number"),
    ],
)
def test_a_misspelt_part_is_refused(change, says):
    with pytest.raises(ConfigInvalid) as refused:
        load_config(CONFIGS / "student/bevdepth_r50.py", change)
    assert says in str(refused.value)
