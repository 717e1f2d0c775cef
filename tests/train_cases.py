"""A teacher and a student small enough to train in tests: a second for a handful of steps."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from golden.formula import state_dict
from mmengine.config import Config
from mmengine.model import BaseModel
from nuscenes_tables import write_nuscenes

from camera3d.detectors import build_detector
from extract.focal_areas import FocalOptions
from extract.run import DumpOptions, run_dump
from train.engine import run
from train.engine.data import train_loader
from train.engine.run import DistillOptions

ROOT = Path(__file__).parent.parent
SCENES = {"scene-0061": 4, "scene-0553": 2}
FRAMES = sum(SCENES.values())
VERSION, SPLIT = "v1.0-mini", "tiny_train"
TERMS = {
    "pv_divergence": {},
    "bev_heatmap": {},
    "pv_generation": {},
    "bev_generation": {},
    "focal": {},
    "query": {},
}


FAMILIES = {"bevformer": "student/bevformer_small.py", "detr3d": "student/detr3d_r50.py"}


def small_config(*, student: bool, family: str = "bevformer") -> Config:
    """ResNet-18 of 8 channels, 3 levels, 16-channel maps, 12 queries; the student sees half the pixels."""
    config = Config.fromfile(ROOT / "configs" / FAMILIES[family])
    stages = (0, 1, 2) if student else (1, 2, 3)
    config.model.img_backbone.update(
        depth=18,
        base_channels=8,
        # No stage that nobody reads: data-parallel training wants a gradient for every parameter.
        num_stages=stages[-1] + 1,
        strides=(1, 2, 2, 2)[: stages[-1] + 1],
        dilations=(1,) * (stages[-1] + 1),
        style="pytorch",
        out_indices=stages,
        frozen_stages=-1,
        norm_cfg={"type": "BN", "requires_grad": True},
        norm_eval=True,
        dcn=None,
        stage_with_dcn=(False,) * (stages[-1] + 1),
    )
    config.model.img_neck.update(in_channels=[8 << stage for stage in stages], out_channels=16, num_outs=3)
    config.model.pv_strides = tuple(4 << stage for stage in stages)
    config.model.max_detections = 12
    with_bev = {"bev_hw": (8, 8) if student else (16, 16), "encoder_layers": 1}
    config.model.pts_bbox_head = {
        **(with_bev if family == "bevformer" else {}),
        "decoder_layers": 2,
        "num_queries": 12,
        "embed_dims": 16,
        "num_heads": 4,
        "ffn_dims": 32,
        "dropout": 0.1,
    }
    config.inputs.update(scale=0.5 if student else 1.0, pad_hw=(32, 64) if student else (64, 128))
    config.queue_length = 2
    config.auto_scale_lr.enable = False  # the tests' rates are for their own batches
    return config


@dataclass(frozen=True)
class Workshop:
    """A dataset, a teacher with weights that are confident of something, and configs on the disk."""

    folder: Path
    dataroot: Path
    teacher_config: Path
    checkpoint: Path
    family: str = "bevformer"

    def store(
        self, profile: str, arrays: tuple[str, ...] = ("bev", "pv", "queries"), scenes: tuple[str, ...] = ()
    ) -> Path:
        """The teacher's store of a profile; dumped when it is first asked for."""
        path = self.folder / f"{'-'.join((profile, *arrays, *scenes))}.zarr"
        if path.exists():
            return path
        run_dump(
            DumpOptions(
                config=str(self.teacher_config),
                dataroot=str(self.dataroot),
                version=VERSION,
                split=SPLIT,
                out=str(path),
                checkpoint=str(self.checkpoint),
                profile=profile,
                # Three cells of this map: the heatmap reaches further than a footprint.
                focal=FocalOptions(bev_margin_m=19.2),
                arrays=arrays,
                scenes=scenes or None,
                workers=0,
                threads=1,
            )
        )
        return path

    def student_config(
        self, name: str = "student", *, distiller: dict | None = None, **options: object
    ) -> Path:
        """A distillation config of all terms or with another `distiller`, changed by dotted keys."""
        config = small_config(student=True, family=self.family)
        config.merge_from_dict(
            {
                "teacher": self.teacher_config.name,
                "distiller": copy.deepcopy({"terms": TERMS} if distiller is None else distiller),
                "train_cfg": {"max_epochs": 2, "val_interval": 2},
                "log_interval": 1,
            }
        )
        config.merge_from_dict(options)
        path = self.folder / f"{name}.py"
        config.dump(path)
        return path

    def options(self, config: Path, work_dir: Path | str = "unused", **changes: object) -> DistillOptions:
        """A distillation from the exact store, in this process."""
        if changes.get("teacher_source", "cache") == "cache":
            changes.setdefault("cache", str(self.store("exact")))
        else:
            changes.setdefault("teacher_checkpoint", str(self.checkpoint))
        return DistillOptions(
            **{
                "config": str(config),
                "dataroot": str(self.dataroot),
                "version": VERSION,
                "split": SPLIT,
                "val_split": "none",
                "work_dir": str(work_dir),
                "workers": 0,
                **changes,
            }
        )

    def arguments(self, config: Path, work_dir: Path, *more: str) -> list[str]:
        """The command line of a training without evaluation."""
        data = ("--dataroot", self.dataroot, "--version", VERSION, "--split", SPLIT, "--val-split", "none")
        return [str(word) for word in (config, *data, "--work-dir", work_dir, "--workers", "0", *more)]


@dataclass(frozen=True)
class Prepared:
    """What `distill` has put together before the first step."""

    model: torch.nn.Module
    config: Config
    index: object
    transforms: tuple

    def batch(self, dataroot: Path, *, batch_size: int = 1) -> dict[str, object]:
        """The first batch, as the model takes it."""
        loader = train_loader(
            self.config,
            self.index,
            dataroot,
            batch_size=batch_size,
            workers=0,
            seed=0,
            transforms=self.transforms,
        )
        return self.model.data_preprocessor(next(iter(loader)), True)


def prepare(options: DistillOptions) -> Prepared:
    """All that `distill` does but train. Raises what it raises."""
    with mock.patch.object(run, "_train") as train:
        run.distill(options)
    model, config, _, index, *_ = train.call_args.args
    return Prepared(model, config, index, tuple(train.call_args.kwargs["transforms"]))


@contextmanager
def recorded_losses() -> Iterator[list[dict[str, float]]]:
    """The losses of every step from here on, in this process and unsmoothed."""
    steps: list[dict[str, float]] = []
    original = BaseModel.parse_losses

    def parse(self, losses):
        total, named = original(self, losses)
        steps.append(
            {name: value.item() if torch.is_tensor(value) else value for name, value in named.items()}
        )
        return total, named

    with mock.patch.object(BaseModel, "parse_losses", parse):
        yield steps


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of an exported detector."""
    return torch.load(path, weights_only=True)["state_dict"]


def make_workshop(folder: Path, family: str = "bevformer") -> Workshop:
    """Write the dataset, the teacher's config and its checkpoint."""
    (folder / "nuscenes").mkdir()
    dataroot = write_nuscenes(
        folder / "nuscenes", scenes=SCENES, image_hw=(64, 128), can_bus=True, splits={SPLIT: list(SCENES)}
    )
    config = small_config(student=False, family=family)
    teacher_config = folder / "teacher.py"
    config.dump(teacher_config)
    checkpoint = folder / "teacher.pth"
    weights = state_dict(build_detector(config))
    # Scores between 0.02 and 0.5, so that some queries are confident and others are not.
    last = "pts_bbox_head.cls_branches.1.6."
    weights[f"{last}weight"] *= 4
    weights[f"{last}bias"] = weights[f"{last}bias"] * 4 - 7.4
    torch.save({"state_dict": weights}, checkpoint)
    return Workshop(folder, Path(dataroot), teacher_config, checkpoint, family)
