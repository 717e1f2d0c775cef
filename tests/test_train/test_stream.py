"""A training that streams: what it carries, when it does not, and that all else of a training holds."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from detector_cases import trainable_copy
from train_cases import FRAMES, prepare, recorded_losses, small_config
from train_faults import not_finite

from camera3d.data import NuScenesQueueDataset, collate_queue
from camera3d.detectors.bevformer.detector import BEVFormer
from camera3d.detectors.history import StreamHistory
from camera3d.errors import ConfigInvalid
from train import train_detector as train_detector_command
from train.engine.checkpoints import checkpoints
from train.engine.data import train_loader
from train.engine.run import distill, train_detector

pytestmark = pytest.mark.usefixtures("one_thread")
STREAMED = {"history": "stream", "segment_length": 3, "single_frame_steps": 0}
FOCAL = {"terms": {"focal": {}, "bev_heatmap": {}}}
ONE_EPOCH = {"train_cfg.max_epochs": 1}


@pytest.fixture(scope="module")
def config(workshop):
    return workshop.student_config("streamed", distiller=FOCAL, **STREAMED, **ONE_EPOCH)


@pytest.fixture
def states(monkeypatch):
    """Of every step the state that the detector was given, and which samples it was meant for."""
    seen, original = [], BEVFormer.encode

    def encode(self, frame, state=None):
        seen.append((state, frame["has_prev"].tolist()))
        return original(self, frame, state)

    monkeypatch.setattr(BEVFormer, "encode", encode)
    return seen


def test_a_stream_equals_a_queue_of_all_its_history(workshop, config):
    """Two slots; with frozen weights a frame is what a queue of its whole history makes of it."""
    plain = {"distort": False, "model.grid_mask_prob": 0.0}
    got = prepare(workshop.options(config, cfg_options=plain))
    detector, history = trainable_copy(got.model.student), StreamHistory()
    loader = train_loader(got.config, got.index, workshop.dataroot, batch_size=2, workers=0, seed=0)
    queues = {
        length: NuScenesQueueDataset(
            got.index,
            loader.dataset.pipeline,
            workshop.dataroot,
            point_cloud_range=got.config.model.point_cloud_range,
            queue_length=length,
            drop_history_frame=False,
            distort=False,
            filter_empty_gt=False,
        )
        for length in (1, 2, 3)
    }
    lengths, apart = [], 0
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        frames = list(loader.sampler)
        for step, batch in enumerate(loader):
            with torch.no_grad():
                streamed = history.outputs(detector, batch["inputs"])
            for slot, (row, first) in enumerate(frames[2 * step : 2 * step + 2]):
                queue = collate_queue([queues[row - first + 1][row]])
                assert queue["data_samples"][0].sample_token == batch["data_samples"][slot].sample_token
                with torch.no_grad():
                    wanted = detector.training_outputs(queue["inputs"])
                for name, values in wanted.items():
                    torch.testing.assert_close(
                        streamed[name][slot],
                        values[0],
                        rtol=1e-5,
                        atol=1e-5,
                        msg=lambda m, n=name, at=(epoch, step, slot): f"{n} {at}: {m}",
                    )
                lengths.append(row - first + 1)
            apart += len(set(batch["inputs"]["has_prev"][:, 0].tolist())) == 2
    assert set(lengths) == {1, 2, 3}
    assert apart, "the slots always started together"


def test_the_state_of_the_step_before_is_given_and_holds_no_gradient(workshop, config, states, tmp_path):
    with recorded_losses() as steps:
        distill(workshop.options(config, tmp_path))
    assert len(steps) == len(states) == FRAMES
    given = [state for state, _ in states]
    assert [state is None for state in given] == [True, False, False] * 2, "a segment starts anew"
    assert all(not state.requires_grad and state.grad_fn is None for state in given if state is not None)
    assert [has_prev for _, has_prev in states[::3]] == [[False], [False]]
    assert [True] in [has_prev for _, has_prev in states]


def test_a_detector_alone_streams_too(workshop, config, states, tmp_path):
    with recorded_losses() as steps:
        train_detector(workshop.options(config, tmp_path))
    assert len(steps) == FRAMES
    assert all(name == "loss" or "loss_cls" in name or "loss_bbox" in name for name in steps[0])
    assert [state is None for state, _ in states] == [True, False, False] * 2


def test_a_queue_carries_nothing(workshop, states, tmp_path):
    config = workshop.student_config("queued", distiller=FOCAL, **ONE_EPOCH, queue_length=1)
    distill(workshop.options(config, tmp_path))
    assert [state for state, _ in states] == [None] * FRAMES


def test_a_step_that_is_left_out_leaves_no_state(workshop, config, states, tmp_path):
    with not_finite([2]):
        distill(workshop.options(config, tmp_path, skip_nonfinite=1))
    assert [state is None for state, _ in states] == [True, False, True, True, False, False]


def test_checkpoints_come_between_segments_and_optimiser_steps(workshop, tmp_path):
    often = {"checkpoint_interval": 1, "optim_wrapper.accumulative_counts": 2, "train_cfg.max_epochs": 2}
    config = workshop.student_config("accumulated-stream", distiller=FOCAL, **STREAMED, **often)
    distill(workshop.options(config, tmp_path))
    # Segments of three frames, two steps to an optimiser step.
    assert [path.name for path in checkpoints(tmp_path)] == ["iter_12.pth", "iter_6.pth"]


def test_another_history_cannot_be_gone_on_with(workshop, config, tmp_path):
    distill(workshop.options(config, tmp_path))
    for change in ({"history": "queue"}, {"segment_length": 2}, {"single_frame_steps": 1}):
        (key,) = change
        with pytest.raises(ConfigInvalid, match=f"{key}: "):
            distill(workshop.options(config, tmp_path, resume=True, cfg_options=change))


def test_a_teacher_of_queues_is_refused(workshop, config):
    with pytest.raises(ConfigInvalid, match=r"live_fd shows the teacher the student's queue"):
        prepare(workshop.options(config, teacher_source="live_fd"))


def test_a_live_teacher_may_go_with_it(workshop, config, tmp_path):
    with recorded_losses() as live:
        distill(workshop.options(config, tmp_path / "live", teacher_source="live"))
    with recorded_losses() as cached:
        distill(workshop.options(config, tmp_path / "cached"))
    for ours, wanted in zip(live, cached, strict=True):
        assert ours["loss"] == pytest.approx(wanted["loss"], rel=2e-3)


def test_an_evaluation_does_not_touch_the_carried_state(workshop, config):
    got = prepare(workshop.options(config))
    student = got.model.student
    batch = got.batch(workshop.dataroot)["inputs"]
    with torch.no_grad():
        student.history.outputs(student, batch)
        carried = student.history._state
        student.encode({name: batch[name][:, -1] for name in student.inputs})
    assert student.history._state is carried


def test_a_detector_without_state_says_so_in_a_sentence(workshop, tmp_path, capfd):
    config = small_config(student=True, family="detr3d")
    config.history = "stream"
    config.dump(tmp_path / "detr3d.py")
    arguments = workshop.arguments(tmp_path / "detr3d.py", tmp_path / "work")
    assert train_detector_command.main(arguments) == 2
    told = capfd.readouterr().err
    assert "ConfigInvalid: history='stream' hands a state from frame to frame, and DETR3D has none" in told
    assert "Traceback" not in told


def test_it_is_refused_before_any_target_is_read(workshop):
    config = workshop.student_config("mistyped", distiller=FOCAL, history="steam")
    with mock.patch("train.engine.run.target_setting") as read, pytest.raises(ConfigInvalid, match="steam"):
        distill(workshop.options(config))
    read.assert_not_called()
