"""A BEVDepth, its dataset and stores, small enough for the tests of every command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import bevdepth_cases
import numpy as np
import torch
from evaluation_cases import VERSION, write_ten_classes
from mmengine.config import Config

from camera3d.data import load_or_build_index
from camera3d.detectors import build_detector
from extract.dump_teacher import main as dump

ROOT = bevdepth_cases.ROOT
TERMS = {"pv_generation": {}, "pv_divergence": {}, "bev_generation": {}, "bev_heatmap": {}}


def small_config() -> Config:
    """ResNet-18 of 8 channels, 7 depth bins, 16×16 cells, two key frames."""
    config = Config.fromfile(ROOT / "configs/student/bevdepth_r50_2key.py")
    config.model.img_backbone.update(depth=18, base_channels=8, frozen_stages=-1)
    config.model.update(
        image_hw=(32, 96),
        neck_channels=4,
        depth_channels=16,
        context_channels=8,
        depth_bins_m=(2.0, 58.0, 8.0),
        voxel_size_m=(6.4, 6.4, 8.0),
        trunk_channels=8,
        bev_neck_channels=4,
        decode_rule={"max_cells": 40},
    )
    config.inputs.update(scale=1.0, pad_hw=(32, 96))
    config.train_cfg = {"max_epochs": 2, "val_interval": 2}
    config.train_dataloader = {"batch_size": 2, "num_workers": 0}
    config.log_interval, config.amp = 1, None
    return config


def write_sweeps(dataroot: Path, index) -> None:
    """Some thousand points around the vehicle in every keyframe."""
    for row in range(len(index)):
        path = dataroot / index[row].lidar_path
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.RandomState(row)
        points = np.zeros((3000, 5), dtype=np.float32)
        points[:, :2] = random.uniform(-40, 40, (3000, 2))
        points[:, 2] = random.uniform(-2, 3, 3000)
        path.write_bytes(points.tobytes())


def make_case(folder: Path, nuscenes: Path, profiles: Sequence[str]) -> SimpleNamespace:
    """Data with LiDAR, configs of a teacher and a student, weights, and the store of every profile."""
    dataroot = write_ten_classes(nuscenes)
    config = small_config()
    config.dump(folder / "teacher.py")
    torch.save({"state_dict": bevdepth_cases.state_dict(build_detector(config))}, folder / "teacher.pth")
    config.merge_from_dict({"teacher": "teacher.py", "distiller": {"terms": TERMS}})
    config.dump(folder / "student.py")
    config.augmentation = None
    config.dump(folder / "still.py")
    data = ["--dataroot", str(dataroot), "--version", VERSION, "--split", "all"]
    stores = {}
    for profile in profiles:
        stores[profile] = folder / f"{profile}.zarr"
        options = ["--profile", profile, "--workers", "0", "--threads", "1", "--focal-margins", "12.8,1"]
        command = [str(folder / "teacher.py"), *data, "--checkpoint", str(folder / "teacher.pth"), *options]
        # No sweep is there yet: a dump needs none.
        assert dump([*command, "--out", str(stores[profile])]) == 0
    index = load_or_build_index(str(dataroot), VERSION, "all")
    write_sweeps(dataroot, index)
    return SimpleNamespace(folder=folder, dataroot=dataroot, data=data, index=index, **stores)
