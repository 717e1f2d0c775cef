"""The picture of a held-out frame: always the same frame, and a picture whatever was detected."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from train_cases import SPLIT, VERSION

from camera3d.data import load_or_build_index
from camera3d.detectors.protocol import Detections
from train.engine.pictures import held_out_picture, shown_frame


@pytest.fixture(scope="module")
def index(workshop):
    return load_or_build_index(workshop.dataroot, VERSION, SPLIT)


def detections(boxes: np.ndarray, score: float) -> Detections:
    n = len(boxes)
    return Detections(
        boxes=torch.nan_to_num(torch.from_numpy(boxes.copy())),
        scores=torch.full((n,), score),
        labels=torch.zeros(n, dtype=torch.long),
    )


def test_the_fullest_frame_of_the_scene_in_the_middle(index):
    frame = shown_frame(index)
    assert frame.sample_token == shown_frame(index).sample_token
    scene = index.scenes[len(index.scenes) // 2]
    assert frame.scene_name == scene.name
    assert len(frame.gt_boxes) == max(len(other.gt_boxes) for other in scene.frames)


@pytest.mark.parametrize("score", [0.9, 0.01, None], ids=["sure", "doubtful", "nothing detected"])
def test_a_picture(workshop, index, score):
    frame = shown_frame(index)
    boxes = frame.gt_boxes if score is not None else frame.gt_boxes[:0]
    picture = held_out_picture(frame, detections(boxes, score or 0.0), workshop.dataroot)
    assert (picture.dtype, picture.ndim, picture.shape[-1]) == (np.uint8, 3, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
