"""A detector over a split: the stream it is fed, the state it is left in, and several processes together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from evaluation_cases import OBJECTS, PIPELINE, VERSION, SeesTheTruth, write_ten_classes

from camera3d.data import build_index
from camera3d.data.scene_shares import scenes_of_part
from camera3d.errors import ConfigInvalid, ImagesBroken, OutputsNotFinite
from camera3d.evaluation import Metrics, evaluate_detector, predict_split
from camera3d.evaluation.errors import ResultsIncomplete, ResultsInvalid

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory):
    return write_ten_classes(tmp_path_factory.mktemp("nuscenes"))


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, VERSION, "all")


def evaluate(detector, index, dataroot, **options):
    options = {"version": VERSION, "split": "all", "out_dir": None, "device": "cpu", "workers": 0} | options
    return evaluate_detector(detector, index, PIPELINE, dataroot, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_come_as_a_stream(index, dataroot, workers):
    detector = SeesTheTruth(index)
    found = list(predict_split(detector, index, PIPELINE, dataroot, device="cpu", workers=workers))
    tokens = [frame.sample_token for frame in index.frames()]
    assert [token for token, _ in found] == tokens
    position = [number + 1 for scene in index.scenes for number in range(len(scene.frames))]
    assert detector.seen == [(token, n, False) for token, n in zip(tokens, position, strict=True)]


def test_metrics_and_files(index, dataroot, tmp_path):
    metrics = evaluate(SeesTheTruth(index), index, dataroot, out_dir=tmp_path)
    # Every query is reported under nine wrong classes too, after all others: precision falls at full recall.
    assert metrics.mean_ap > 0.98
    assert metrics.nds > 0.99
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.json",
        "metrics_summary.json",
        "precision_recall.json",
        "results_nusc.json",
    ]
    assert Metrics.from_dict(json.loads((tmp_path / "metrics.json").read_text())).nds == metrics.nds


@pytest.mark.parametrize("fails", [False, True], ids=["ends well", "fails"])
def test_detector_is_left_as_it_was(index, dataroot, fails, monkeypatch):
    detector = SeesTheTruth(index).train()
    detector.frozen.eval()
    if fails:
        monkeypatch.setattr(detector, "decode", lambda outputs: 1 / 0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    if fails:
        with pytest.raises(ZeroDivisionError):
            evaluate(detector, index, dataroot, workers=1)
    else:
        evaluate(detector, index, dataroot, workers=1)
    assert (detector.training, detector.trainable.training, detector.frozen.training) == (True, True, False)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_half_precision_is_decoded_in_full(index, dataroot):
    class Half(SeesTheTruth):
        def encode(self, *args):
            assert torch.is_autocast_enabled("cpu")
            outputs, state = super().encode(*args)
            return {name: values.bfloat16() for name, values in outputs.items()}, state

        def decode(self, outputs):
            (found,) = super().decode(outputs)
            assert found.boxes.dtype == found.scores.dtype == torch.float32
            return [found]

    metrics = evaluate(Half(index), index, dataroot, autocast_dtype=torch.bfloat16)
    assert 0.9 < metrics.nds < 0.9999


def test_predictions_that_are_not_finite_are_refused(index, dataroot):
    class Diverged(SeesTheTruth):
        def encode(self, *args):
            outputs, state = super().encode(*args)
            if len(self.seen) == 2:
                outputs["query_logits"][..., :3] = float("nan")
            return outputs, state

    detector, second = Diverged(index), index[1].sample_token
    count = len(OBJECTS)
    says = f"sample {second}: {3 * count} of the {10 * count} numbers of query_logits that were predicted"
    with pytest.raises(OutputsNotFinite, match=says):
        evaluate(detector, index, dataroot)
    assert len(detector.seen) == 2


def test_index_of_another_split_is_refused(index, dataroot):
    with pytest.raises(ConfigInvalid, match=r"holds split 'all'.*'one'"):
        evaluate(SeesTheTruth(index), index, dataroot, split="one")


def test_part_of_a_split_is_refused(index, dataroot):
    part = index.select(["scene-0061"])
    with pytest.raises(ResultsIncomplete, match="lacks 5 of the 7 samples of split 'all'"):
        evaluate(SeesTheTruth(part), part, dataroot)


def test_unknown_class_is_refused_before_work_begins(index, dataroot):
    detector = SeesTheTruth(index)
    detector.class_names = ("car", "tram")
    with pytest.raises(ResultsInvalid, match="tram"):
        evaluate(detector, index, dataroot)
    assert not detector.seen


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_image_is_named(tmp_path, workers):
    root = write_ten_classes(tmp_path)
    index = build_index(root, VERSION, "all")
    lost = index[3].image_paths[2]
    (root / lost).unlink()
    with pytest.raises(ImagesBroken) as caught:
        evaluate(SeesTheTruth(index), index, root, workers=workers)
    assert caught.value.paths == (lost,)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_scenes_are_shared_evenly(world_size):
    n_samples = {"a": 40, "b": 39, "c": 20, "d": 19, "e": 1}
    parts = [scenes_of_part(n_samples, rank, world_size) for rank in range(world_size)]
    assert sorted(name for part in parts for name in part) == list(n_samples)
    loads = [sum(n_samples[name] for name in part) for part in parts]
    assert max(loads) <= max(40, 4 / 3 * sum(n_samples.values()) / world_size)


def test_two_processes_agree_with_one(tmp_path):
    root = write_ten_classes(tmp_path / "nuscenes")
    index = build_index(root, VERSION, "all")
    alone = evaluate(SeesTheTruth(index), index, root, out_dir=tmp_path / "alone")
    command = [sys.executable, "-W", "ignore", str(HERE / "evaluation_ranks.py"), str(root), str(tmp_path)]
    processes = [
        subprocess.Popen(
            [*command, str(rank), "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [[json.loads(line) for line in stdout.splitlines()] for stdout, _ in outputs]
    assert [first["metrics"] for first, _ in lines] == [alone.to_dict()] * 2
    seen = [{token for token, *_ in first["seen"]} for first, _ in lines]
    assert [len(part) for part in seen] == [3, 4]
    assert set.union(*seen) == {frame.sample_token for frame in index.frames()}
    assert all(error["error"].startswith("image files below") for _, error in lines)
    written = [(tmp_path / who / "results_nusc.json").read_bytes() for who in ("alone", "metrics")]
    assert written[0] == written[1]
