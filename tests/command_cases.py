"""A detector small enough to dump a scene in a second, and the dataset it reads."""

from __future__ import annotations

from pathlib import Path

from bevformer_cases import shrunk_config

IMAGE_HW = (64, 96)
SCENES = {"scene-0061": 3, "scene-0553": 2}


def write_small_config(folder: Path) -> Path:
    """A config file: ResNet-50, one encoder and two decoder layers, 6×6 BEV, 12 queries."""
    config = shrunk_config(num_queries=12)
    config.model.pts_bbox_head.update(bev_hw=(6, 6), encoder_layers=1)
    config.inputs.update(scale=1.0, pad_hw=IMAGE_HW)
    path = folder / "small_teacher.py"
    config.dump(path)
    return path
