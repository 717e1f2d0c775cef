"""Every key of every shipped config: misspelt anywhere, it is refused with the right one named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.config import Config

from camera3d.config_check import check_config
from camera3d.detectors.builder import build_detector, load_config
from camera3d.errors import ConfigInvalid
from train.distillers.config import DistillerConfig

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(p.relative_to(CONFIGS).as_posix() for p in CONFIGS.glob("[!_]*/*.py"))
# Names of the user's: parameters of the model.
FREE = ("custom_keys",)
# Of a detector of mmdet: dicts that no constructor takes apart, and constructors that take anything.
UNTYPED = ("train_cfg", "test_cfg", "rpn", "rcnn", "rpn_proposal", "nms", "roi_layer", "init_cfg", "sampler")
UNTYPED += ("bbox_coder",)


def keys(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The path of every key of a tree, outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        free = (*FREE, *UNTYPED) if "detector" in path else FREE
        if isinstance(name, str) and (not path or path[-1] not in free):
            yield (*path, name)
        yield from keys(item, (*path, name))


def complaint(config: Config) -> str:
    """What is said about a config by the checks of a training; empty when nothing is."""
    try:
        check_config(config, "it")
        if "distiller" in config:
            DistillerConfig.from_config(config)
    except ConfigInvalid as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", SHIPPED)
def test_every_key_of_a_shipped_config(name):
    given = load_config(CONFIGS / name).to_dict()
    assert complaint(Config(given)) == ""
    checked = 0
    for path in keys(given):
        changed = Config(given).to_dict()
        folder = changed
        for step in path[:-1]:
            folder = folder[step]
        wrong = path[-1] + path[-1][-1]
        folder[wrong] = folder.pop(path[-1])
        said = complaint(Config(changed))
        if path[-1] == "type":
            assert "type" in said, path
        else:
            assert f"{wrong}: unknown; did you mean {path[-1]}?" in said, (path, said)
        checked += 1
    assert checked > 40


@pytest.mark.parametrize("name", SHIPPED)
def test_a_key_too_many(name):
    given = load_config(CONFIGS / name).to_dict()
    given["optim_wraper"] = {"optimizer": {"lr": 0.5}}
    assert "optim_wraper: unknown; did you mean optim_wrapper?" in complaint(Config(given))


WRONG = [
    ("optim_wraper.optimizer.lr", 0.5, "optim_wraper: unknown; did you mean optim_wrapper?"),
    ("optim_wrapper.optimizer.lr", "fast", "optim_wrapper.optimizer.lr: expected a number, got 'fast'"),
    ("optim_wrapper.optimizer.type", "AdamV", "'AdamV' is not registered; did you mean Adam"),
    ("optim_wrapper.clip_grad.max_norm", "big", "optim_wrapper.clip_grad.max_norm: expected a number"),
    (
        "param_scheduler.0.type",
        "LinearRL",
        "param_scheduler.0.type: 'LinearRL' is not registered; did you mean Lin",
    ),
    ("param_scheduler.0.begin", 0.5, "param_scheduler.0.begin: expected a whole number, got 0.5"),
    ("train_cfg.max_epochs", "two", "train_cfg.max_epochs: expected a whole number of 1 or more, got 'two'"),
    ("train_cfg.max_epochs", 0, "train_cfg.max_epochs: expected a whole number of 1 or more, got 0"),
    ("train_cfg.max_epochs", True, "train_cfg.max_epochs: expected a whole number of 1 or more, got True"),
    ("train_cfg", 2, "train_cfg: expected a dict, got 2"),
    ("log_interval", 0, "log_interval: expected a whole number of 1 or more, got 0"),
    ("checkpoint_interval", "1e3", "checkpoint_interval: expected a whole number of 1 or more, got '1e3'"),
    ("train_dataloader.batch_size", 0, "train_dataloader.batch_size: expected a whole number of 1 or more"),
    ("amp", "fp8", "amp: expected fp16, bf16 or None, got 'fp8'"),
    ("distort", "no", "distort: expected True or False, got 'no'"),
    ("cells", 9, "names of your own begin with _"),
    (
        "model.pts_bbox_head.num_heads",
        "five",
        "model.pts_bbox_head.num_heads: expected a whole number, got 'five'",
    ),
    ("model.pts_bbox_head.bev_hw", 50, "model.pts_bbox_head.bev_hw: expected 2 of: a whole number, got 50"),
    ("model.img_backbone.depht", 50, "model.img_backbone.depht: unknown; did you mean depth?"),
    ("model.img_backbone.dcn.deform_group", 1, "dcn.deform_group: unknown; did you mean deform_groups?"),
    ("model.type", "BEVFormr", "model.type: 'BEVFormr' is not registered; did you mean BEVFormer?"),
    ("model.criterion", {"cls_wait": 1}, "model.criterion.cls_wait: unknown; did you mean cls_weight?"),
    ("unknown_velocity", "none", "unknown_velocity: expected zero or nan, got 'none'"),
    ("ground_truth_range", 51.2, "ground_truth_range: expected 6 of: a number, got 51.2"),
    ("lidar_depth", "no", "lidar_depth: expected True or False, got 'no'"),
    ("inputs.resise", "opencv", "inputs.resise: unknown; did you mean resize?"),
]


@pytest.mark.parametrize(("key", "value", "says"), WRONG, ids=lambda case: str(case)[:40])
def test_a_wrong_override_is_one_sentence(key, value, says):
    path = CONFIGS / "student/bevformer_small.py"
    with pytest.raises(ConfigInvalid) as refused:
        load_config(path, {key: value})
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"config {path} with --cfg-options does not work:")
    assert len(str(refused.value).splitlines()) == 2


def test_a_name_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"_base_ = ['{CONFIGS}/demo/student.py']\n_width = 16\n")
    assert load_config(path)._width == 16


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"model.pts_bbox_head.num_heads": 5}, "num_heads 5: expected a divisor of embed_dims 64"),
        ({"model.pts_bbox_head.bev_hw": (0, 5)}, "bev_hw[0] 0: expected a whole number of 1 or more"),
        ({"model.pts_bbox_head.decoder_layers": 0}, "decoder_layers 0: expected"),
        ({"model.pts_bbox_head.num_levels": 4}, "num_levels"),
        ({"model.img_backbone.depth": 51}, "invalid depth 51 for resnet"),
        ({"model.pts_bbox_head.num_queries": -1}, "num_queries -1: expected"),
    ],
    ids=str,
)
def test_a_detector_that_cannot_be_built_is_one_sentence(overrides, says):
    with pytest.raises(ConfigInvalid) as refused:
        build_detector(load_config(CONFIGS / "demo/student.py", overrides))
    said = str(refused.value)
    assert "BEVFormer cannot be built from its `model`: " in said
    assert says in said
    assert len(said.splitlines()) == 1
