"""Two forms of DETR3D checkpoints: which one a file holds, and the same boxes from both."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from detr3d_cases import frame_inputs, golden, shrunk_config, shrunk_detector
from torch import Tensor

from camera3d.boxes import decode_official
from camera3d.checkpoint import load_official
from camera3d.detectors import build_detector
from camera3d.errors import CheckpointMismatch, ConfigInvalid

ORIGINAL = {"mmcv_version": "1.4.0", "mmdet3d_version": "0.17.1", "epoch": 24}
CONVERTED = {**ORIGINAL, "detr3d_convert_tag": True}
PORT = {
    "mmengine_version": "0.5.0",
    "cfg": "model = dict(type='DETR3D', pts_bbox_head=dict(type='DETR3DHead', num_query=900))",
}
OURS = {"mmengine_version": "0.10.7", "cfg": "model = dict(type='DETR3D', checkpoint_boxes='auto')"}
OTHER = {"mmengine_version": "0.8.4", "cfg": "model = dict(type='MyDetector')"}
NEWER = {"mmcv_version": "1.6.0", "mmdet3d_version": "1.0.0rc6"}


def official() -> dict[str, Tensor]:
    return {key: value.clone() for key, value in shrunk_detector().state_dict().items()}


def converted() -> dict[str, Tensor]:
    """What the port's converter makes of the official weights: two rows exchanged, two with their sign."""
    weights = official()
    for key, value in weights.items():
        if "reg_branches" in key and len(value) == 10:
            old = value.clone()
            value[2], value[3] = old[3], old[2]
            value[6], value[7] = -old[7], -old[6]
    return weights


def with_choice(choice: str) -> torch.nn.Module:
    """A detector whose weights are nobody's yet."""
    detector = copy.deepcopy(shrunk_detector())
    detector.checkpoint_boxes = choice
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()
    return detector


CASES = {
    "the original": (ORIGINAL, "auto", official),
    "without a record": (None, "auto", official),
    "our own training's": (OURS, "auto", official),
    "converted": (CONVERTED, "auto", converted),
    "the port's": (PORT, "auto", converted),
    "another training's, said to be official": (OTHER, "official", official),
    "another training's, said to be mmdet3d": (OTHER, "mmdet3d", converted),
    "converted, record lost, said to be mmdet3d": (None, "mmdet3d", converted),
    "converted, said so too": (CONVERTED, "mmdet3d", converted),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "memory"])
def test_every_form_becomes_the_official_weights(case, from_file, tmp_path):
    meta, choice, weights = CASES[case]
    source = {"state_dict": weights()} if meta is None else {"meta": meta, "state_dict": weights()}
    if from_file:
        torch.save(source, tmp_path / "teacher.pth")
        source = tmp_path / "teacher.pth"
    detector = with_choice(choice)
    load_official(detector, source)
    for key, value in shrunk_detector().state_dict().items():
        assert torch.equal(detector.state_dict()[key], value), key


@pytest.mark.parametrize("meta", [OTHER, NEWER], ids=["mmengine", "mmdet3d 1.x"])
def test_a_form_that_cannot_be_told_is_refused(meta, tmp_path):
    torch.save({"meta": meta, "state_dict": converted()}, tmp_path / "other.pth")
    detector = with_choice("auto")
    with pytest.raises(CheckpointMismatch, match=r"other\.pth does not say which boxes") as caught:
        load_official(detector, tmp_path / "other.pth")
    assert "checkpoint_boxes='mmdet3d'" in str(caught.value)
    assert "checkpoint_boxes='official'" in str(caught.value)
    assert not any(parameter.any() for parameter in detector.parameters())


@pytest.mark.parametrize(("meta", "choice"), [(CONVERTED, "official"), (PORT, "official"), (OURS, "mmdet3d")])
def test_a_choice_against_the_record_is_refused(meta, choice):
    with pytest.raises(CheckpointMismatch, match="by its own record"):
        load_official(with_choice(choice), {"meta": meta, "state_dict": converted()})


def test_other_shapes_are_listed_before_the_form_is_asked_for():
    weights = converted()
    weights["pts_bbox_head.reg_branches.0.4.bias"] = torch.zeros(8)
    with pytest.raises(CheckpointMismatch, match=r"expected \(10,\), got \(8,\)"):
        load_official(with_choice("auto"), {"meta": CONVERTED, "state_dict": weights})


def test_unknown_choice():
    config = shrunk_config()
    config.model.checkpoint_boxes = "legacy"
    with pytest.raises(ConfigInvalid, match="checkpoint_boxes is 'legacy': choose one of auto"):
        build_detector(config)


@torch.inference_mode()
def test_converted_weights_speak_of_the_same_boxes():
    """Read in mmdet3d 1.x terms, the branches of converted weights give the boxes that ours give."""
    ours, theirs = shrunk_detector(), copy.deepcopy(shrunk_detector())
    theirs.load_state_dict(converted())
    feats = ours.encode(frame_inputs(golden("tiny"), "f0"))[0]["query_feats"][:, -1]
    expected = decode_official(ours.pts_bbox_head.reg_branches[-1](feats))
    x, y, log_l, log_w, z, log_h, sin, cos, vx, vy = theirs.pts_bbox_head.reg_branches[-1](feats).unbind(-1)
    yaw = torch.atan2(sin, cos)
    actual = torch.stack((x, y, z, log_l.exp(), log_w.exp(), log_h.exp(), yaw, vx, vy), dim=-1)
    turn = (actual[..., 6] - expected[..., 6]) / (2 * math.pi)
    torch.testing.assert_close(turn, turn.round(), rtol=0, atol=1e-5)
    without_yaw = [0, 1, 2, 3, 4, 5, 7, 8]
    torch.testing.assert_close(actual[..., without_yaw], expected[..., without_yaw])
