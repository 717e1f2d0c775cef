"""The real thing: the official sizes on a real keyframe, from checkpoint file to store.

Takes minutes and gigabytes, and nuScenes data that does not ship with the project:
    FOCALCACHE_NUSCENES_KEYFRAME=<dataroot of v1.0-mini with mini_train> python -m pytest -m slow
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import bevdepth_cases
import numpy as np
import pytest
import torch
from golden.formula import state_dict

from cache_schema.inspection.verify import verify
from cache_schema.manifest import SceneManifest, read_manifest
from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, StreamingFrames, load_or_build_index
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from camera3d.fixed_numerics import fixed_numerics
from extract.dump_teacher import main

DATAROOT = os.environ.get("FOCALCACHE_NUSCENES_KEYFRAME")
CONFIGS = Path(__file__).parents[2] / "configs"


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATAROOT, reason="FOCALCACHE_NUSCENES_KEYFRAME does not name a nuScenes dataroot"),
]


@pytest.fixture(scope="module")
def dump(tmp_path_factory):
    """`dump(config, *options)`: a reader of the keyframe's store, and its checkpoint; each made once."""
    folder = tmp_path_factory.mktemp("full-size")

    @cache
    def dump(config, *options):
        path, name = CONFIGS / config, "-".join((Path(config).stem, *options))
        checkpoint, out = folder / f"{Path(config).stem}.pth", folder / f"{name}.zarr"
        made_up = bevdepth_cases.state_dict if "bevdepth" in config else state_dict
        torch.save({"meta": {"epoch": 24}, "state_dict": made_up(build_detector(path))}, checkpoint)
        where = ["--dataroot", DATAROOT, "--version", "v1.0-mini", "--split", "mini_train"]
        weights = () if "--untrained" in options else ("--checkpoint", str(checkpoint))
        assert main([str(path), *where, *weights, "--out", str(out), *options]) == 0
        return TargetReader(out), checkpoint

    return dump


@pytest.mark.parametrize(
    ("config", "bev_shape", "pv_shape"),
    [
        ("teacher/bevformer_base.py", (256, 200, 200), (6, 256, 116, 200)),
        ("student/bevformer_small.py", (256, 100, 100), (6, 256, 116, 200)),
        ("teacher/bevdepth_r50.py", (256, 128, 128), (6, 512, 16, 44)),
    ],
    ids=["base", "small", "bevdepth"],
)
def test_dump_of_a_real_keyframe(config, bev_shape, pv_shape, dump):
    path = CONFIGS / config
    reader, checkpoint = dump(config)
    detector = build_detector(path)
    load_official(detector, checkpoint)
    index = load_or_build_index(DATAROOT, "v1.0-mini", "mini_train")
    pipeline = ImagePipeline.from_config(load_config(path).inputs)
    item = StreamingFrames(index, pipeline, DATAROOT)[0]
    with fixed_numerics(None), torch.inference_mode():
        outputs, _ = detector.encode({name: item[name][None] for name in detector.inputs})
    stored = reader[item["sample_token"]]
    assert stored["bev_feats"].shape == bev_shape
    assert stored["pv_feats_0"].shape == pv_shape
    for name, value in outputs.items():
        np.testing.assert_array_equal(stored[name], value[0].numpy().astype(stored[name].dtype), err_msg=name)


@pytest.mark.parametrize(("profile", "least_mb", "most_mb"), [("compact", 65.2, 65.4), ("focal", 4.5, 8.0)])
def test_profiles_of_a_real_keyframe(profile, least_mb, most_mb, dump):
    # Untrained, as it is sure of no query: made-up weights are of all 900, whose areas are most of the map.
    config = "teacher/bevformer_base.py"
    exact, reader = dump(config, "--untrained")[0], dump(config, "--untrained", "--profile", profile)[0]
    assert verify(reader.path).faults == []
    (token,) = reader.sample_tokens
    wanted, stored = exact[token], reader[token]
    sizes = [size for record in scene_arrays(reader) for size in record.shard_nbytes]
    assert least_mb <= sum(sizes) / 1e6 <= most_mb
    for name in ("bev_feats", *(f"pv_feats_{level}" for level in range(4))):
        values, scale = wanted[name].astype(np.float32), stored[f"{name}_scale"]
        if profile == "compact":
            error = np.abs(stored[name] * scale[..., None, None] - values)
            assert (error <= scale[..., None, None] * 0.501).all()
        else:
            kept = reader.read_focal(token).maps[name]
            assert 0.03 < kept.mask.mean() < 0.3
            cell_scale = scale if kept.mask.ndim == 2 else scale[np.nonzero(kept.mask)[0]]
            error = np.abs(kept.cell_values() - np.moveaxis(values, -3, -1)[kept.mask])
            assert (error <= cell_scale * 0.501).all()
    for name in ("can_bus", "lidar2img"):
        np.testing.assert_array_equal(stored[name], wanted[name])


def scene_arrays(reader):
    (scene,) = reader.scenes
    return read_manifest(reader.path / "scenes" / scene, SceneManifest).arrays
