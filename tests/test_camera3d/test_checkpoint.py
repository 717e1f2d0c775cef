"""Official checkpoints: every layout of the file, and every way in which it can be wrong."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
from bevformer_cases import shrunk_detector
from mmengine.logging.history_buffer import HistoryBuffer

from camera3d.checkpoint import load_official
from camera3d.errors import CheckpointMismatch


@pytest.fixture
def detector():
    return copy.deepcopy(shrunk_detector())


@pytest.fixture
def weights(detector):
    return OrderedDict((key, value.clone()) for key, value in detector.state_dict().items())


def blank(detector) -> None:
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.zero_()


def official_log() -> dict:
    """What mmcv 1.x and mmengine leave beside the weights."""
    return {"epoch": 24, "iter": np.int64(1), "hook_msgs": {}, "history": HistoryBuffer([1.0], [1])}


LAYOUTS = {
    "bare": lambda weights: weights,
    "under state_dict": lambda weights: {"meta": {"epoch": 24}, "state_dict": weights},
    "with a training log": lambda weights: {"meta": official_log(), "state_dict": weights},
    "module. prefix": lambda weights: {"state_dict": {f"module.{k}": v for k, v in weights.items()}},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("from_file", [True, False], ids=["file", "memory"])
def test_layouts(detector, weights, layout, from_file, tmp_path):
    source = LAYOUTS[layout](weights)
    if from_file:
        torch.save(source, tmp_path / "teacher.pth")
        source = tmp_path / "teacher.pth"
    blank(detector)
    load_official(detector, source)
    for key, value in detector.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_all_mismatches_together_and_nothing_loaded(detector, weights):
    del weights["pts_bbox_head.query_embedding.weight"]
    weights["pts_bbox_head.extra"] = torch.zeros(3)
    weights["img_backbone.conv1.weight"] = torch.zeros(64, 3, 5, 5)
    blank(detector)
    with pytest.raises(CheckpointMismatch) as caught:
        load_official(detector, weights)
    message = str(caught.value)
    assert "missing (1):\n    pts_bbox_head.query_embedding.weight" in message
    assert "unexpected (1):\n    pts_bbox_head.extra" in message
    assert "img_backbone.conv1.weight: expected (64, 3, 7, 7), got (64, 3, 5, 5)" in message
    assert all(parameter.eq(0).all() for parameter in detector.parameters())


def test_long_lists_are_counted(detector):
    with pytest.raises(CheckpointMismatch, match=r"… and \d+ more"):
        load_official(detector, {})


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code ran')",)


def write_pickle(path):
    path.write_bytes(pickle.dumps({"state_dict": Payload()}))


def write_zip_with_code(path):
    torch.save({"state_dict": {}, "meta": Payload()}, path)


class Reach:
    """The same through the one attribute look-up that is allowed for the training log."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, "__init__")


def write_attribute_reach(path):
    torch.save({"state_dict": {}, "meta": Reach()}, path)


def write_truncated(path):
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:600])


@pytest.mark.parametrize(
    "write",
    [
        write_pickle,
        write_zip_with_code,
        write_attribute_reach,
        write_truncated,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("<html>404</html>"),
        lambda path: path.write_text("a,b\n1,2\n"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"state_dict": {"a": "text"}}, path),
    ],
    ids=[
        "pickle",
        "code in meta",
        "attribute reach",
        "truncated",
        "empty",
        "html",
        "a table",
        "a list",
        "text for tensors",
    ],
)
def test_files_that_are_no_checkpoint(detector, write, tmp_path):
    write(tmp_path / "broken.pth")
    with pytest.raises(CheckpointMismatch, match=r"broken\.pth"):
        load_official(detector, tmp_path / "broken.pth")


def test_no_file(detector, tmp_path):
    with pytest.raises(CheckpointMismatch, match=r"no checkpoint file .*nothing\.pth"):
        load_official(detector, tmp_path / "nothing.pth")


def test_a_checkpoint_of_a_distillation_points_at_the_student(tmp_path):
    detector = torch.nn.Linear(2, 2)
    weights = {f"student.{key}": value for key, value in detector.state_dict().items()}
    torch.save({"state_dict": weights, "meta": {}}, tmp_path / "iter_9.pth")
    with pytest.raises(
        CheckpointMismatch, match=r"iter_9.pth is a checkpoint of a distillation.*use last.pth"
    ):
        load_official(detector, tmp_path / "iter_9.pth")
