"""A teacher and a student small enough to train in tests: a second for a handful of steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from golden.formula import state_dict
from mmengine.config import Config
from nuscenes_tables import write_nuscenes

from camera3d.detectors import build_detector
from extract.run import DumpOptions, run_dump

ROOT = Path(__file__).parent.parent
SCENES = {"scene-0061": 3, "scene-0553": 2}
VERSION, SPLIT = "v1.0-mini", "mini_train"
TERMS = {
    "pv_divergence": {},
    "bev_heatmap": {},
    "pv_generation": {},
    "bev_generation": {},
    "focal": {},
    "query": {},
}


def small_config(*, student: bool) -> Config:
    """ResNet-18 of 8 channels, three levels of 16-channel maps, 12 queries. The student sees half the pixels."""
    config = Config.fromfile(ROOT / "configs/student/bevformer_small.py")
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
    config.model.pts_bbox_head = {
        "bev_hw": (8, 8) if student else (16, 16),
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_queries": 12,
        "embed_dims": 16,
        "num_heads": 4,
        "ffn_dims": 32,
        "dropout": 0.1,
    }
    config.inputs.update(scale=0.5 if student else 1.0, pad_hw=(32, 64) if student else (64, 128))
    config.queue_length = 2
    return config


@dataclass(frozen=True)
class Workshop:
    """A dataset, a teacher with weights that are confident of something, and configs on the disk."""

    folder: Path
    dataroot: Path
    teacher_config: Path
    checkpoint: Path

    def store(self, profile: str, arrays: tuple[str, ...] = ("bev", "pv", "queries")) -> Path:
        """The teacher's store of a profile; dumped when it is first asked for."""
        path = self.folder / f"{profile}-{'-'.join(arrays)}.zarr"
        run_dump(
            DumpOptions(
                config=str(self.teacher_config),
                dataroot=str(self.dataroot),
                version=VERSION,
                split=SPLIT,
                out=str(path),
                checkpoint=str(self.checkpoint),
                profile=profile,
                arrays=arrays,
                workers=0,
                threads=1,
            )
        )
        return path

    def student_config(self, name: str = "student", **options: object) -> Path:
        """A distillation config of all terms, changed by dotted keys."""
        config = small_config(student=True)
        config.merge_from_dict(
            {
                "teacher": self.teacher_config.name,
                "distiller": {"terms": TERMS},
                "train_cfg": {"max_epochs": 2, "val_interval": 2},
                "log_interval": 1,
                **options,
            }
        )
        path = self.folder / f"{name}.py"
        config.dump(path)
        return path


def make_workshop(folder: Path) -> Workshop:
    """Write the dataset, the teacher's config and its checkpoint."""
    (folder / "nuscenes").mkdir()
    dataroot = write_nuscenes(folder / "nuscenes", scenes=SCENES, image_hw=(64, 128), can_bus=True)
    config = small_config(student=False)
    teacher_config = folder / "teacher.py"
    config.dump(teacher_config)
    checkpoint = folder / "teacher.pth"
    torch.save({"state_dict": state_dict(build_detector(config))}, checkpoint)
    return Workshop(folder, Path(dataroot), teacher_config, checkpoint)
