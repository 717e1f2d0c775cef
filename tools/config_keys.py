"""Write docs/reference/config-keys.md: every key of a config with its default, taken from code and configs.

Example:
    python tools/config_keys.py

A key that the code reads and this file has no words for is an error: add a line to WORDS.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "config-keys.md"
SCHEDULE = ROOT / "configs" / "_base_" / "schedule_24ep.py"
READERS = ("camera3d", "train", "extract")
NEEDED = "needed"

# A key of a config by its dotted path, or a keyword of a part by `part: name`.
WORDS = {
    "amp": "`fp16` or `bf16`: compute in half precision; none: float32",
    "auto_scale_lr.base_batch_size": "samples a step, over all GPUs, that the learning rate is meant for",
    "auto_scale_lr.enable": "take a rate in proportion to the samples a step; false: as it is written",
    "checkpoint_interval": "steps between checkpoints, rounded up to whole optimiser steps",
    "class_balanced": "show every class in equally many frames",
    "class_names": "order of the labels; `model` takes it from here",
    "dataset": "what is trained and scored on: see below",
    "dataset: type": "`nuscenes`, or `coco` for 2D detectors",
    "dataset: images_per_group": "of `coco`: pictures that stand together where nuScenes has a scene",
    "deterministic": "choose kernels that repeat themselves to the bit, where there are any",
    "distiller": "what is distilled: see below; of distillation configs",
    "augmentation": "what training samples are moved by: `image` and `bev`, see below and"
    " [Training](../train.md#augmentation)",
    "ema": "average of the weights that is scored and exported: see below and"
    " [Training](../train.md#averaged-weights)",
    "distort": "photometric distortion of the images that are trained on",
    "drop_history_frame": "leave one frame of the history out, a random one, as released",
    "find_unused_parameters": "of data-parallel training: allow parameters that a step does not use",
    "history": "where a detector with a state has its history from: `queue` or `stream`, see"
    " [Training](../train.md#history-queues-or-streams)",
    "segment_length": "with `history='stream'`: most frames that a slot goes through one after the other",
    "single_frame_steps": "with `history='stream'`: so many first steps see each frame without history",
    "ground_truth_range": "where boxes count in training: x, y, z minimum, then maximum, metres of the LiDAR"
    " frame; none: `point_cloud_range` of the model",
    "lidar_depth": "whether samples of a detector that asks for the LiDAR's depth have it",
    "unknown_velocity": "what stands for a velocity that annotations do not tell: `zero`, or `nan` for losses"
    " that leave it out",
    "inputs": "what the network is shown: see below",
    "log_interval": "steps between lines of the log",
    "model": "the detector: see below",
    "optim_wrapper.accumulative_counts": "steps whose gradients are gathered for one optimiser step",
    "optim_wrapper.clip_grad.max_norm": "longest gradient; longer ones are shortened to it",
    "optim_wrapper.clip_grad.norm_type": "how the length is measured",
    "optim_wrapper.optimizer.lr": "learning rate after the warm-up",
    "optim_wrapper.optimizer.type": "any optimiser of torch, by name; its keywords stand beside it",
    "optim_wrapper.optimizer.weight_decay": "of the optimiser",
    "optim_wrapper.paramwise_cfg.custom_keys.img_backbone.lr_mult": "factor on the backbone's rate; any part"
    " of a parameter's name may stand in the place of `img_backbone`",
    "optim_wrapper.type": "mmengine's wrapper; `amp` chooses the one of half precision",
    "param_scheduler": "mmengine's schedules, one after the other: a warm-up of 500 forward steps, then a"
    " cosine over all epochs",
    "point_cloud_range": "x, y, z minimum, then maximum, in metres; `model` takes it from here",
    "queue_length": "frames of a sample, the last one with ground truth",
    "cache_layer": "name of the store's layer whose queries and detections are read, see"
    " [Training](../train.md#a-distillation-head); of distillation configs",
    "teacher": "config of the teacher, relative to this file; of distillation configs",
    "train_cfg": "see the rows below it",
    "train_cfg.max_epochs": "epochs of the training",
    "train_cfg.val_interval": "epochs between evaluations",
    "train_dataloader": "see the rows below it",
    "train_dataloader.batch_size": "samples a process and step; `--batch-size` overrides it",
    "train_dataloader.num_workers": "processes that load data, for each process; `--workers` overrides it",
    "detector: criterion": "`cls_weight` (2.0) and `bbox_weight` (0.25) of the detection loss",
    "detector: img_backbone": "any backbone that mmdet has registered",
    "detector: img_neck": "any neck that mmdet has registered; its maps go to the head, finest first",
    "detector: pts_bbox_head": "the keywords of the head, below",
    "detector: checkpoint_boxes": "which boxes a checkpoint predicts: `official`, `mmdet3d` (trained or"
    " converted with mmdet3d 1.x), or `auto`: what its own record says",
    "BEVDepth: img_backbone": "a ResNet of mmdet with its four stages out",
    "BEVDepth: class_names": "in the order of the tasks",
    "BEVDepth: point_cloud_range": "x, y, z minimum, then maximum, of the BEV map, metres of the ego frame",
    "BEVDepth: context_channels": "of what is lifted",
    "BEVDepth: neck_channels": "of the image neck, for each of its four maps",
    "BEVDepth: depth_channels": "of the depth net's layers",
    "BEVDepth: trunk_channels": "of the first stage of the BEV encoder",
    "BEVDepth: bev_neck_channels": "of the BEV encoder's neck, for each of its four maps",
    "BEVDepth: num_cameras": "of a frame",
    "BEVDepth: decode_rule": "how boxes are found, below",
    "BEVDepth: criterion": "the losses, below",
    "MMDetDetector: detector": "`model` of an mmdet config; `config` in it names one that mmdet comes with,"
    " such as `mmdet::gfl/gfl_r50_fpn_1x_coco.py`, into which the other keys are put",
    "MMDetDetector: class_names": "order of the labels, as many as its heads have classes",
    "head: bev_hw": "cells of the BEV map along y and x",
    "head: num_queries": "object queries",
    "head: encoder_layers": "layers that make the BEV map",
    "head: decoder_layers": "layers that make the boxes",
    "head: embed_dims": "channels",
    "head: num_heads": "heads of every attention",
    "head: ffn_dims": "width of the feed-forward layers",
    "head: temporal_points": "points that a BEV cell reads from its history",
    "head: pillar_points": "points that a BEV cell reads from an image map, a multiple of `pillar_heights`",
    "head: pillar_heights": "heights at which a BEV cell's pillar is projected into the images",
    "head: decoder_points": "points that a query reads from the BEV map",
    "head: dropout": "in training",
    "inputs: scale": "factor on the images' sides",
    "inputs: pad_hw": "height and width after scaling and padding with zeros, at the bottom and the right",
    "inputs: mean": "of each channel, in pixel values, in the network's order",
    "inputs: std": "likewise",
    "inputs: fit": "of `keep_ratio`: most pixels of the short and of the long side, before `scale`",
    "inputs: to_rgb": "whether the network wants RGB; images are read as BGR",
    "distiller: terms": "keywords of each term, by its name: see below; may be empty",
    "distiller: areas": "where the terms look: see below",
    "distiller: bev_mask_ratio": "how likely the BEV generator hides a cell of an area",
    "distiller: init_from_teacher": "what the student's head starts from: `none`, `released`, `head` or"
    " `head_and_encoder`, see [Training](../train.md#configs)",
    "distiller: pv_levels": "pairs (student's image level, teacher's); none: in order",
    "areas: ground_truth": "whether annotated boxes make areas",
    "areas: queries": "whether what the teacher detected makes areas",
    "term: weight": "factor on the loss",
    "term: tau": "temperature of the softmax",
    "term: mask_ratio": "how likely a cell of an area is hidden",
    "term: skip_empty": "generate only the window around the areas of each image",
    "term: reduction": "over the cells of the areas: `mean` or `sum`",
    "term: bev_map": "which of the student's maps is looked at",
    "term: logit_weight": "factor on the loss of the classes",
    "term: box_weight": "factor on the loss of the boxes",
}
# What is handed to these by whoever builds them, and is no key of a config.
GIVEN = {
    "data_preprocessor", "init_cfg", "kwargs", "num_classes", "num_levels", "levels", "restore", "sampling",
    "projections", "image_maps", "box_code",
}  # fmt: skip
# What a distillation head is told by its store.
FROM_STORE = {"class_names", "bev_map"}
# Required of the class that checks a config, and not of the config.
MAY_BE_EMPTY = {"distiller: terms", "distiller: areas"}


class NoWords(Exception):
    """A key without a line in WORDS."""


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT))
    from camera3d.data.augmentation import BevAugmentation, ImageAugmentation
    from camera3d.data.datasets import DatasetChoice
    from camera3d.data.images import ImagePipeline
    from camera3d.detectors.bevdepth.criterion import BEVDepthCriterion
    from camera3d.detectors.bevdepth.decode import DecodeRule
    from camera3d.detectors.bevdepth.detector import BEVDepth
    from camera3d.detectors.bevformer.builder import build_bevformer_head
    from camera3d.detectors.bevformer.detector import BEVFormer
    from camera3d.detectors.detr3d.builder import build_detr3d_head
    from camera3d.detectors.detr3d.detector import DETR3D
    from camera3d.detectors.image2d.detector import MMDetDetector
    from camera3d.detectors.query_based.distillation_head import DistillationHead
    from train.distillers.areas import AreaOptions
    from train.distillers.config import DistillerConfig
    from train.distillers.terms import TERMS
    from train.engine.averaging import AverageOptions

    parts = [
        "# Config keys",
        "Made by `python tools/config_keys.py` from the code and from `configs/_base_`: do not edit. A config"
        " is a Python file in mmengine's form; `_base_` names the files that it changes, `--cfg-options"
        " KEY=VALUE …` changes single keys by the names below, such as `train_cfg.max_epochs=12`.",
        "## The whole config",
        f"Defaults are those of `{SCHEDULE.relative_to(ROOT)}`, or of the code where that file does not name"
        " the key.",
        _table(top_level()),
        "## `inputs`",
        _table(_of_dataclass("inputs", ImagePipeline, leave={"distortion"})),
        "## `dataset`",
        _table(_of_dataclass("dataset", DatasetChoice, leave={"class_names"})),
    ]
    told = _documented(DistillationHead)
    heads = {"BEVFormer": (BEVFormer, build_bevformer_head), "DETR3D": (DETR3D, build_detr3d_head)}
    for name, (detector, build) in heads.items():
        given = {"class_names", "point_cloud_range", "num_cameras"}
        parts += [
            f"## `model` with `type='{name}'`",
            _table(_of_class("detector", detector)),
            f"`pts_bbox_head` of {name}:",
            _table(_of_function("head", build, leave=given)),
        ]
    parts += [
        "## `model` with `type='BEVDepth'`",
        _table(_of_class("BEVDepth", BEVDepth)),
        "`criterion` of BEVDepth:",
        _table(_of_class("criterion", BEVDepthCriterion)),
        "`decode_rule` of BEVDepth:",
        _table(_of_dataclass("decode_rule", DecodeRule)),
        "## `model` with `type='MMDetDetector'`",
        _table(_of_class("MMDetDetector", MMDetDetector)),
        "## `model` with `type='DistillationHead'`",
        "Classes and BEV map are those of the store.",
        _table(_of_function("distillation head", DistillationHead.__init__, leave=FROM_STORE, told=told)),
        "## `augmentation`",
        "`image`:",
        _table(_of_dataclass("image", ImageAugmentation)),
        "`bev`:",
        _table(_of_dataclass("bev", BevAugmentation)),
        "## `ema`",
        _table(_of_dataclass("ema", AverageOptions)),
        "## `distiller`",
        _table(_of_dataclass("distiller", DistillerConfig)),
        "## `distiller.areas`",
        _table(_of_dataclass("areas", AreaOptions)),
        "## `distiller.terms`",
        "What each computes: [Terms and their formulas](../terms.md).",
    ]
    for name, term in TERMS.items():
        choices = {"bev_map": " or ".join(f"`{choice}`" for choice in term.BEV_MAPS)}
        parts += [f"### `{name}`", _table(_of_function("term", term.__init__, choices=choices))]
    return "\n\n".join(parts) + "\n"


def top_level() -> dict[str, tuple[object, str]]:
    """Every key that the code asks a config for, and every key of the schedule: default and words."""
    from mmengine.config import Config

    found = {name: default for source in _sources() for name, default in asked_for(source)}
    schedule = Config.fromfile(SCHEDULE).to_dict()
    found.update(_flattened(schedule))
    for name in ("model", "inputs", "class_names", "point_cloud_range", "distiller"):
        found.setdefault(name, NEEDED if name != "distiller" else None)
    for parent in {name.split(".")[0] for name in found if "." in name}:
        found.pop(parent, None)
    return {name: (found[name], _words(name)) for name in sorted(found)}


def asked_for(source: Path) -> Iterator[tuple[str, object]]:
    """The keys of `config.get("key", default)` in a file, with their defaults."""
    tree = ast.parse(source.read_text())
    fields_of = {
        node.target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None
    }
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"
        ):
            continue
        owner = node.func.value
        name = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
        if name in ("config", "cfg") and node.args and isinstance(node.args[0], ast.Constant):
            default = node.args[1] if len(node.args) > 1 else ast.Constant(None)
            if isinstance(default, ast.Attribute):  # such as cls.length: the default of that field
                default = fields_of[default.attr]
            yield node.args[0].value, ast.literal_eval(default)


def _sources() -> Iterator[Path]:
    for package in READERS:
        yield from sorted((ROOT / package).rglob("*.py"))


def _flattened(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _of_dataclass(part: str, kind: type, leave: set[str] = frozenset()) -> dict[str, tuple[object, str]]:
    told = _documented(kind)
    rows = {}
    for field in fields(kind):
        default = NEEDED if field.default is MISSING else field.default
        if f"{part}: {field.name}" in MAY_BE_EMPTY:
            default = {}
        if field.name not in leave:
            rows[field.name] = (default, _words(f"{part}: {field.name}", told.get(field.name)))
    return rows


def _of_class(part: str, kind: type) -> dict[str, tuple[object, str]]:
    """Keywords of a class and those that it hands on to its bases, with the class's own defaults."""
    rows, told, makers = {}, {}, []
    for base in kind.__mro__:
        if not base.__module__.startswith("camera3d") or "__init__" not in vars(base):
            continue
        told |= _documented(base)
        makers.append(base.__init__)
    for maker in reversed(makers):
        rows |= _of_function(part, maker, told=told)
    return {name: rows[name] for name in sorted(rows)}


def _of_function(
    part: str,
    function: Callable,
    *,
    leave: set[str] = frozenset(),
    told: Mapping[str, str] | None = None,
    choices: Mapping[str, str] | None = None,
) -> dict[str, tuple[object, str]]:
    rows = {}
    for parameter in inspect.signature(function).parameters.values():
        name = parameter.name
        if name == "self" or name in GIVEN or name in leave:
            continue
        default = NEEDED if parameter.default is parameter.empty else parameter.default
        words = _words(f"{part}: {name}", (told or {}).get(name))
        rows[name] = (default, f"{words}: {choices[name]}" if name in (choices or {}) else words)
    return rows


def _documented(kind: type) -> dict[str, str]:
    """What the Args or Attributes of a docstring say, by name."""
    told: dict[str, str] = {}
    names: list[str] = []
    section = re.split(r"\n\s*(?:Args|Attributes):\n", inspect.cleandoc(kind.__doc__ or ""))
    for line in section[1].splitlines() if len(section) > 1 else ():
        start = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
            told |= dict.fromkeys(names, start[2])
        elif line.startswith(" " * 8):
            told |= {name: f"{told[name]} {line.strip()}" for name in names}
        else:
            break
    return told


def _words(key: str, told: str | None = None) -> str:
    words = WORDS.get(key, told)
    if words is None:
        raise NoWords(f"{key}: add a line about it to WORDS in tools/config_keys.py")
    return words.rstrip(".").replace("|", "\\|")


def _table(rows: Mapping[str, tuple[object, str]]) -> str:
    lines = ["| key | default | |", "|---|---|---|"]
    for name, (default, words) in rows.items():
        shown = "needed" if default is NEEDED else "none" if default is None else f"`{_shown(default)}`"
        lines.append(f"| `{name}` | {shown} | {words} |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(str(item["type"]) for item in value)
    return repr(round(value, 6)) if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())
