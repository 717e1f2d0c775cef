"""The real thing: the official sizes on a real keyframe, from checkpoint file to store.

Takes minutes and gigabytes, and nuScenes data that does not ship with the project:
    FOCALCACHE_NUSCENES_KEYFRAME=<dataroot of v1.0-mini with mini_train> python -m pytest -m slow
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.formula import state_dict

from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, StreamingFrames, load_or_build_index
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from extract.dump_teacher import main
from extract.numerics import fixed_numerics

DATAROOT = os.environ.get("FOCALCACHE_NUSCENES_KEYFRAME")
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.slow
@pytest.mark.skipif(not DATAROOT, reason="FOCALCACHE_NUSCENES_KEYFRAME does not name a nuScenes dataroot")
@pytest.mark.parametrize(
    ("config", "bev_shape"),
    [("teacher/bevformer_base.py", (256, 200, 200)), ("student/bevformer_small.py", (256, 100, 100))],
    ids=["base", "small"],
)
def test_dump_of_a_real_keyframe(config, bev_shape, tmp_path):
    path, checkpoint, out = CONFIGS / config, tmp_path / "official.pth", tmp_path / "teacher.zarr"
    detector = build_detector(path)
    torch.save({"meta": {"epoch": 24}, "state_dict": state_dict(detector)}, checkpoint)
    where = ["--dataroot", DATAROOT, "--version", "v1.0-mini", "--split", "mini_train"]
    assert main([str(path), *where, "--checkpoint", str(checkpoint), "--out", str(out)]) == 0

    load_official(detector, checkpoint)
    index = load_or_build_index(DATAROOT, "v1.0-mini", "mini_train")
    pipeline = ImagePipeline.from_config(load_config(path).inputs)
    reader = TargetReader(out)
    item = StreamingFrames(index, pipeline, DATAROOT)[0]
    with fixed_numerics(None), torch.inference_mode():
        outputs = detector.encode(item["images"][None], item["lidar2img"][None], item["can_bus"][None])
    stored = reader[item["sample_token"]]
    assert stored["bev_feats"].shape == bev_shape
    assert stored["pv_feats_0"].shape == (6, 256, 116, 200)
    for name, value in outputs.sample_arrays(0).items():
        np.testing.assert_array_equal(stored[name], value.numpy().astype(stored[name].dtype), err_msg=name)
