"""Frames of a stream: motion, one distortion a history, ground truth or none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from queue_cases import PIPELINE, RANGE, SCENES
from torch.utils.data import DataLoader

from camera3d.data import (
    NuScenesQueueDataset,
    NuScenesSegmentDataset,
    SegmentFrame,
    build_index,
    collate_queue,
    images,
)

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(scenes=SCENES)


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, "v1.0-mini", "mini_train")


@pytest.fixture
def frames(index, dataroot):
    def make(**options):
        return NuScenesSegmentDataset(index, PIPELINE, dataroot, point_cloud_range=RANGE, **options)

    return make


def distortion_of(frames: NuScenesSegmentDataset, asked: SegmentFrame, monkeypatch) -> np.ndarray:
    """What becomes of a colour ramp in the six cameras: the distortion that is drawn for a frame."""
    ramp = np.arange(90 * 160 * 3, dtype=np.uint32).reshape(90, 160, 3) % 251
    monkeypatch.setattr("camera3d.data.images.read_image", lambda path: ramp.astype(np.uint8))
    return frames[asked]["images"].numpy()


def test_a_frame_is_the_last_of_a_queue_without_its_history(frames, index, dataroot):
    queues = NuScenesQueueDataset(
        index,
        PIPELINE,
        dataroot,
        point_cloud_range=RANGE,
        queue_length=2,
        drop_history_frame=False,
        distort=False,
    )
    ours, wanted = frames(distort=False)[SegmentFrame(5, 3)], queues[5]
    for name in ("images", "lidar2img", "can_bus", "has_prev"):
        torch.testing.assert_close(ours[name], wanted[name][-1:], rtol=0, atol=0)
    assert ours["has_prev"].tolist() == [True]
    assert ours["data_samples"].sample_token == index[5].sample_token


def test_a_stream_reads_a_frame_where_a_queue_reads_four(frames, index, dataroot, monkeypatch):
    opened, original = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: opened.append(path) or original(path))
    frames()[SegmentFrame(5, 3)]
    assert len(opened) == 6
    NuScenesQueueDataset(index, PIPELINE, dataroot, point_cloud_range=RANGE)[5]
    assert len(opened) == 6 + 24


def test_where_a_history_starts_nothing_has_moved(frames):
    item = frames()[SegmentFrame(5, 5)]
    assert item["has_prev"].tolist() == [False]
    assert not item["can_bus"][0, :3].any()
    assert item["can_bus"][0, 17] == 0


def test_a_history_has_one_distortion_drawn_for_each_camera(frames, monkeypatch):
    drawn = [distortion_of(frames(), SegmentFrame(row, 2), monkeypatch) for row in (2, 3, 5)]
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])
    assert len({camera.tobytes() for camera in drawn[0][0]}) > 1
    others = [distortion_of(frames(), SegmentFrame(row, row), monkeypatch) for row in (3, 5)]
    later = frames()
    later.set_epoch(1)
    others.append(distortion_of(later, SegmentFrame(3, 2), monkeypatch))
    others.append(distortion_of(frames(seed=1), SegmentFrame(3, 2), monkeypatch))
    assert len({images.tobytes() for images in (drawn[0], *others)}) == 5


def test_frames_without_ground_truth_are_kept(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 3}, tracks=0)
    empty = NuScenesSegmentDataset(
        build_index(root, "v1.0-mini", "mini_train"), PIPELINE, root, point_cloud_range=RANGE
    )
    assert len(empty[SegmentFrame(1, 0)]["data_samples"].gt_instances_3d.labels_3d) == 0


def test_workers_give_what_is_asked_for_in_its_order(frames, index):
    asked = [SegmentFrame(9, 8), SegmentFrame(3, 3), SegmentFrame(10, 8), SegmentFrame(4, 3)]
    loader = DataLoader(frames(), batch_size=2, sampler=asked, num_workers=2, collate_fn=collate_queue)
    batches = list(loader)
    assert [[s.sample_token for s in batch["data_samples"]] for batch in batches] == [
        [index[9].sample_token, index[3].sample_token],
        [index[10].sample_token, index[4].sample_token],
    ]
    assert [batch["inputs"]["has_prev"].tolist() for batch in batches] == [
        [[True], [False]],
        [[True], [True]],
    ]
