"""A whole step of the released HeatmapDistiller: nine losses and every gradient stay what they were.

The numbers in tests/golden/released-step.npz were printed by this project while its step agreed with the
released code to 3e-6. BEV maps have their full size, 200×200 and 100×100 cells; channels and images are few.
To print them anew, which only a mended error could justify: python tests/test_train/test_released_step.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden.formula import entry, state_dict
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.structures import InstanceData
from train_cases import ROOT

from camera3d.detectors import OutputSpec, build_detector
from camera3d.detectors.protocol import BEV_MAP, IMAGE_MAP
from train.distillers import build_distiller
from train.distillers.config import DistillerConfig
from train.distillers.fit import compared_maps
from train.targets import TargetLayout, TeacherTargets
from train.targets.description import TeacherDescription

GOLDEN = ROOT / "tests" / "golden"
CHANNELS, TEACHER_BEV, STUDENT_BEV = 16, (200, 200), (100, 100)
RANGE_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
PV_HWS = ((16, 24), (8, 12), (4, 6), (2, 3))


def student_config() -> Config:
    """FocalDistiller's student with a narrow ResNet-18, two decoder layers and one encoder layer."""
    config = Config.fromfile(ROOT / "configs/distill/bevformer_base_to_small_heatmap.py")
    config.model.grid_mask_prob = 0.0
    config.model.img_backbone.update(
        depth=18, base_channels=8, style="pytorch", frozen_stages=-1, dcn=None, stage_with_dcn=(False,) * 4
    )
    config.model.img_backbone.norm_cfg = {"type": "BN", "requires_grad": True}
    config.model.img_neck.update(in_channels=[8, 16, 32, 64], out_channels=CHANNELS)
    config.model.pts_bbox_head = {
        "bev_hw": STUDENT_BEV,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "num_queries": 40,
        "embed_dims": CHANNELS,
        "num_heads": 4,
        "ffn_dims": 32,
        "dropout": 0.0,
    }
    config.inputs.pad_hw = (64, 96)
    return config


class FixedTargets:
    """Normal draws in place of a teacher."""

    def __init__(self) -> None:
        rng = np.random.RandomState(5)
        maps = [
            OutputSpec(
                name=f"pv_feats_{level}",
                role=IMAGE_MAP,
                shape=(6, CHANNELS, *hw),
                dimension_names=("camera", "channel", f"pv_{level}_y", f"pv_{level}_x"),
                stride=8.0 * 2**level,
            )
            for level, hw in enumerate(PV_HWS)
        ]
        bev = OutputSpec(
            name="bev_feats",
            role=BEV_MAP,
            shape=(CHANNELS, *TEACHER_BEV),
            dimension_names=("channel", "bev_y", "bev_x"),
            extent_m=RANGE_M,
            frame="lidar",
        )
        self.specs = {spec.name: spec for spec in (*maps, bev)}
        self.sample = {
            name: torch.from_numpy(rng.standard_normal(spec.shape).astype(np.float32))
            for name, spec in self.specs.items()
        }

    def targets(self, inputs, data_samples, extras):
        """See TargetSource."""
        layout = TargetLayout(profile="exact", query_axes={}, num_queries=40)
        return TeacherTargets([self.sample], layout)


def batch() -> dict[str, object]:
    """Two frames of normal images, and the cameras and boxes of the golden keyframe."""
    frame, truth = np.load(GOLDEN / "tiny.npz"), np.load(GOLDEN / "losses.npz")
    rng = np.random.RandomState(6)
    images = torch.from_numpy(rng.standard_normal((1, 2, 6, 3, 64, 96)).astype(np.float32) * 50)
    lidar2img = torch.from_numpy(frame["f0.lidar2img"]).float()[None, None].repeat(1, 2, 1, 1, 1)
    can_bus = torch.from_numpy(np.stack([frame["f0.can_bus"], frame["f1.can_bus"]])).float()[None]
    sample = Det3DDataSample()
    boxes = LiDARInstance3DBoxes(
        torch.from_numpy(truth["gt_boxes"]).float(), box_dim=9, origin=(0.5, 0.5, 0.5)
    )
    labels = torch.from_numpy(truth["gt_labels"]).long()
    sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels)
    has_prev = torch.tensor([[False, True]])
    return {
        "inputs": {"images": images, "lidar2img": lidar2img, "can_bus": can_bus, "has_prev": has_prev},
        "data_samples": [sample],
    }


def step() -> tuple[dict[str, float], dict[str, float]]:
    """The losses of one step, and the norm of the gradient of every trainable parameter of the student."""
    config, source = student_config(), FixedTargets()
    student = build_detector(config)
    student.load_state_dict(state_dict(student))
    chosen = DistillerConfig.from_config(
        Config({"distiller": {"terms": config.distiller.terms, "init_from_teacher": "none"}})
    )
    teacher = TeacherDescription(
        name="normal draws",
        profile="exact",
        specs=source.specs,
        stored=frozenset(source.specs),
        image_scale=1.0,
        head={},
    )
    maps = compared_maps(config, chosen, student.output_specs((64, 96)), teacher)
    model = build_distiller(
        config, chosen, student=student, teacher=teacher, maps=maps, source=source
    ).train()
    restore = model.terms["bev_heatmap"].restore
    restore.load_state_dict({k: entry(f"restore.{k}", v) for k, v in restore.state_dict().items()})
    losses = model(**batch(), mode="loss")
    sum(losses.values()).backward()
    gradients = {n: float(p.grad.norm()) for n, p in student.named_parameters() if p.grad is not None}
    gradients |= {f"restore.{n}": float(p.grad.norm()) for n, p in restore.named_parameters()}
    return {name: loss.item() for name, loss in losses.items()}, gradients


@pytest.mark.usefixtures("one_thread")
def test_the_released_step_stays_as_it_is():
    golden = np.load(GOLDEN / "released-step.npz")
    losses, gradients = step()
    assert len(losses) == 9
    assert set(losses) | {f"grad.{name}" for name in gradients} == set(golden.files)
    for name, value in losses.items():
        # Sums of 10⁵ float32 numbers, in another order on another processor.
        assert value == pytest.approx(float(golden[name]), rel=1e-5), name
    for name, value in gradients.items():
        # Kinks of ReLU and of bilinear sampling: gradients vary more between processors than losses do.
        assert value == pytest.approx(float(golden[f"grad.{name}"]), rel=1e-3, abs=1e-6), name


if __name__ == "__main__":
    torch.set_num_threads(1)
    losses, gradients = step()
    np.savez(
        GOLDEN / "released-step.npz",
        **{name: np.float64(value) for name, value in losses.items()},
        **{f"grad.{name}": np.float64(value) for name, value in gradients.items()},
    )
    Path("/dev/stdout").write_text("\n".join(f"{name} {value:.6f}" for name, value in losses.items()) + "\n")
