"""Scenes, configs, weights and stores of a run: each made when it is first asked for, and kept."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from common import ROOT
from mmengine.config import Config
from torch import nn

from camera3d.data import NuScenesIndex, load_or_build_index
from camera3d.detectors import Detector, build_detector
from camera3d.detectors.builder import load_config
from camera3d.files import replace_with
from camera3d.logs import quiet_mmengine
from extract import dump_teacher
from gpu_stages.stage import Context
from synthetic_nuscenes import TRAIN_SPLIT, VERSION, generate

FULL = {"scenes": 3, "seconds": 6.0, "image_hw": (900, 1600), "val_share": 0.34}
TINY = {"scenes": 2, "seconds": 1.0, "image_hw": (64, 112), "val_share": 0.5, "processes": 1}
# Of a class in a query of the random teacher: some queries are over the areas' 0.1, others are not.
CONFIDENT_LOGIT = -2.6
KINDS = ("teacher", "student", "distill")
TEACHERS = ("bevformer_base", "detr3d_r101")


@dataclass(frozen=True)
class Scenes:
    """Where the frames are."""

    dataroot: str
    version: str
    split: str

    def arguments(self) -> list[str]:
        """As our commands take them."""
        return ["--dataroot", self.dataroot, "--version", self.version, "--split", self.split]


@dataclass(frozen=True)
class Materials:
    """See the module."""

    context: Context

    @cached_property
    def scenes(self) -> Scenes:
        """Given ones, or generated."""
        context = self.context
        if context.dataroot is not None:
            return Scenes(context.dataroot, str(context.version), str(context.split))
        made = generate(context.work / "scenes", **(TINY if context.tiny else FULL))
        return Scenes(str(made), VERSION, TRAIN_SPLIT)

    @cached_property
    def index(self) -> NuScenesIndex:
        """Of two scenes: more would only take longer."""
        where = self.scenes
        index = load_or_build_index(where.dataroot, where.version, where.split)
        return index.select(list(index.scene_names)[:2])

    def config(self, name: str) -> Path:
        """A full-size config, such as "bevformer_base"; a tiny run has a shrunken copy."""
        path = published(name)
        if not self.context.tiny:
            return path
        own = self.context.work / "configs" / path.parent.name / path.name
        if not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            config = shrunken(path)
            replace_with(own, lambda partial: partial.write_text(config.pretty_text))
        return own

    def checkpoint(self, name: str) -> Path:
        """Random weights of a teacher, see `random_detector`."""
        path = self.context.work / f"{name}.pth"
        if not path.exists():
            weights = random_detector(load_config(self.config(name))).state_dict()
            replace_with(path, lambda partial: torch.save({"state_dict": weights}, partial))
        return path

    def store(self, teacher: str, profile: str) -> Path:
        """A store of the index's first scene."""
        path = self.context.work / f"{teacher}-{profile}.zarr"
        self.dump(teacher, profile, path, scenes=self.index.scene_names[:1])
        return path

    def dump(self, teacher: str, profile: str, out: Path, *, scenes: tuple[str, ...]) -> None:
        """By the command itself; what is there already is left alone. Raises RuntimeError when it fails."""
        arguments = [str(self.config(teacher)), *self.scenes.arguments(), "--scenes", *scenes]
        arguments += ["--checkpoint", str(self.checkpoint(teacher)), "--out", str(out)]
        arguments += ["--profile", profile, "--device", self.context.device]
        # In a tiny run nothing is worth a process of its own.
        arguments += ["--threads", "1", "--workers", "0"] if self.context.tiny else ["--workers", "8"]
        print("python extract/dump_teacher.py", *arguments, file=sys.stderr)
        code = dump_teacher.main(arguments)
        if code:
            raise RuntimeError(f"dump_teacher.py ended with exit code {code}, see the log")


def published(name: str) -> Path:
    """The config of that name, whatever it is for."""
    (path,) = [path for kind in KINDS if (path := ROOT / "configs" / kind / f"{name}.py").is_file()]
    return path


def shrunken(path: Path) -> Config:
    """A full-size config with all its parts in small: ResNet-50 of 4 channels, one encoder layer."""
    config = load_config(path)
    model, inputs = config.model, config.inputs
    stages = model.img_backbone.get("out_indices", (1, 2, 3))
    model.img_backbone.update(depth=50, base_channels=4)
    model.img_neck.update(in_channels=[16 << stage for stage in stages], out_channels=16)
    head = model.pts_bbox_head
    if "bev_hw" in head:
        head.update(bev_hw=tuple(max(8, cells // 12) for cells in head.bev_hw), encoder_layers=1)
    head.update(decoder_layers=2, num_queries=20, embed_dims=16, num_heads=4, ffn_dims=32)
    model.max_detections = 20
    inputs.pad_hw = tuple(int(side * inputs.scale) for side in (64, 128))
    config.queue_length = min(2, config.get("queue_length", 1))
    return config


def random_detector(config: Config) -> Detector:
    """A detector as training starts with it, but for what then hides a fault.

    Offsets of deformable convolutions are not zero, and some queries are confident.
    """
    torch.manual_seed(0)
    detector = build_detector(config)
    with quiet_mmengine():
        detector.init_weights()
    with torch.no_grad():
        for name, weight in detector.named_parameters():
            if "conv_offset" in name:
                weight.normal_(std=0.01)
        last = [m for m in detector.pts_bbox_head.cls_branches[-1].modules() if isinstance(m, nn.Linear)][-1]
        last.bias.fill_(CONFIDENT_LOGIT)
    return detector.eval()
