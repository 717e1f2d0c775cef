"""Training queues and streaming frames: order, motion, ground truth, and draws that can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from nuscenes_tables import edit_table
from queue_cases import PIPELINE, RANGE, SCENES
from torch.utils.data import DataLoader

from camera3d.data import (
    NuScenesQueueDataset,
    StreamingFrames,
    build_index,
    collate_queue,
    relative_can_bus,
)
from camera3d.data.queue_dataset import MAX_REDRAWS
from camera3d.errors import ConfigInvalid, ImagesBroken

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(scenes=SCENES)


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, "v1.0-mini", "mini_train")


@pytest.fixture
def queues(index, dataroot):
    def make(**options):
        return NuScenesQueueDataset(index, PIPELINE, dataroot, **({"point_cloud_range": RANGE} | options))

    return make


def drawn_rows(dataset, row):
    """Which frames the queue of `row` holds in epoch 0: its draw comes first from its own generator."""
    return dataset._draw_queue(row, np.random.default_rng([dataset.seed, 0, row]))


def test_an_item_has_the_promised_shapes(queues):
    item = queues()[7]
    assert {name: (tuple(t.shape), t.dtype) for name, t in item.items() if name != "data_samples"} == {
        "images": ((4, 6, 3, 24, 40), torch.float32),
        "lidar2img": ((4, 6, 4, 4), torch.float32),
        "can_bus": ((4, 18), torch.float32),
        "has_prev": ((4,), torch.bool),
    }
    assert item["has_prev"].tolist() == [False, True, True, True]
    assert not item["images"][..., 22:, :].any()  # 90 × 0.25 = 22 rows, then padding


def test_history_drops_one_of_the_four_frames_before(queues, index):
    dataset = queues(distort=False)
    seen = set()
    for epoch in range(25):
        dataset.set_epoch(epoch)
        rows = dataset._draw_queue(6, np.random.default_rng(epoch))
        assert rows[-1] == 6
        assert rows[:-1] == sorted(set(rows[:-1]))
        assert set(rows[:-1]) < {2, 3, 4, 5}
        seen.add(tuple(rows))
    assert len(seen) == 4  # each of the four is dropped sometimes


@pytest.mark.parametrize("length", [1, 2, 3])
def test_history_without_a_dropped_frame_is_what_came_right_before(queues, length):
    dataset = queues(queue_length=length, drop_history_frame=False, distort=False)
    for epoch in range(5):
        assert dataset._draw_queue(6, np.random.default_rng(epoch)) == [4, 5, 6][-length:]


def test_motion_is_relative_to_the_frame_before_in_the_queue(queues, index):
    dataset = queues(distort=False)
    rows = drawn_rows(dataset, 7)
    can_bus = dataset[7]["can_bus"].numpy()
    previous = None
    for row, numbers in zip(rows, can_bus, strict=True):
        frame = index[row]
        np.testing.assert_array_equal(numbers, relative_can_bus(frame, previous).astype(np.float32))
        previous = frame


def test_rows_before_the_start_are_row_zero(queues):
    item = queues(distort=False)[1]
    assert item["has_prev"].tolist() == [False, True, True, True]
    can_bus = item["can_bus"].numpy()
    assert not can_bus[:3, [0, 1, 2, 17]].any()  # the same frame again: no motion
    assert can_bus[3, 0] > 2
    torch.testing.assert_close(item["images"][0], item["images"][2], rtol=0, atol=0)


def test_a_change_of_scene_starts_anew(queues, index):
    dataset = queues(distort=False)
    item = dataset[9]  # the second frame of the second scene, rows 5 to 8 before it
    rows = drawn_rows(dataset, 9)
    expected, previous = [], None
    for row in rows:
        same_scene = previous is not None and index[previous].scene_token == index[row].scene_token
        expected.append(same_scene)
        previous = row
    assert item["has_prev"].tolist() == expected
    assert expected.count(False) == 2
    fresh = expected.index(False, 1)
    assert not item["can_bus"][fresh, [0, 1, 2, 17]].any()


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_other_queue_lengths(queues, length):
    item = queues(queue_length=length, distort=False)[7]
    assert len(item["images"]) == length
    assert item["has_prev"].tolist() == [False] + [True] * (length - 1)


def test_ground_truth_is_filtered_as_in_official_training(queues, index):
    for row in (0, 7, 9):
        frame, sample = index[row], queues().data_sample(row)
        inside = (np.abs(frame.gt_boxes[:, :2]) < 51.2).all(axis=1)
        kept = inside & frame.valid
        assert 0 < kept.sum() < len(kept)
        boxes = sample.gt_instances_3d.bboxes_3d
        assert boxes.box_dim == 9
        np.testing.assert_allclose(boxes.gravity_center.numpy(), frame.gt_boxes[kept, :3], atol=1e-5)
        np.testing.assert_allclose(boxes.tensor[:, 3:].numpy(), frame.gt_boxes[kept, 3:], atol=1e-5)
        np.testing.assert_allclose(
            boxes.bottom_center[:, 2].numpy(),
            frame.gt_boxes[kept, 2] - frame.gt_boxes[kept, 5] / 2,
            atol=1e-5,
        )
        assert sample.gt_instances_3d.labels_3d.tolist() == frame.gt_labels[kept].tolist()
        assert sample.metainfo["sample_token"] == frame.sample_token
        assert sample.metainfo["scene_token"] == frame.scene_token
        assert sample.metainfo["timestamp_us"] == frame.timestamp_us
        assert sample.metainfo["img_shape"] == (24, 40)
        assert sample.metainfo["class_names"] == index.class_names


def test_the_range_is_strict_and_of_the_centre(queues, index):
    frame = index[0]
    x, y = (float(np.float32(number)) for number in frame.gt_boxes[0, :2])
    exactly = (x - 5, y - 5, -5, x, y + 5, 3)
    a_little_more = (x - 5, y - 5, -5, x + 1e-3, y + 5, 3)
    counts = [
        len(queues(point_cloud_range=r, filter_empty_gt=False).data_sample(0).gt_instances_3d)
        for r in (exactly, a_little_more)
    ]
    assert counts == [0, 1]


def test_unknown_velocities_become_zero(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    index = build_index(root, "v1.0-mini", "mini_train")
    assert np.isnan(index[0].gt_boxes[:, 7:]).all()
    dataset = NuScenesQueueDataset(index, PIPELINE, root, point_cloud_range=RANGE)
    assert not dataset.data_sample(0).gt_instances_3d.bboxes_3d.tensor[:, 7:].any()


def test_fewer_classes_in_another_order(queues, index):
    dataset = queues(class_names=("pedestrian", "car"))
    names = {index.class_names[label] for label in index[0].gt_labels}
    assert {"pedestrian", "car", "bus"} <= names
    assert sorted(dataset.data_sample(0).gt_instances_3d.labels_3d.tolist()) == [0, 1]
    with pytest.raises(ConfigInvalid, match="cart are not among car, truck"):
        queues(class_names=("cart",))


@pytest.fixture(scope="module")
def partly_empty(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 12}, tracks=1)
    edit_table(
        root, "sample_annotation", lambda records: [forget(r, 3 < i < 7) for i, r in enumerate(records)]
    )
    return root, build_index(root, "v1.0-mini", "mini_train")


def forget(record, empty):
    return {**record, "num_lidar_pts": 0} if empty else record


def test_queues_with_an_empty_frame_are_replaced(partly_empty):
    root, index = partly_empty
    dataset = NuScenesQueueDataset(
        index, PIPELINE, root, point_cloud_range=RANGE, queue_length=2, distort=False
    )
    for row in range(len(dataset)):
        rows = drawn_rows(dataset, row)
        assert not {4, 5, 6} & set(rows)
        assert rows[-1] == row or row in (4, 5, 6, 7, 8)
        assert len(dataset[row]["data_samples"].gt_instances_3d) == 1
    kept = NuScenesQueueDataset(
        index, PIPELINE, root, point_cloud_range=RANGE, filter_empty_gt=False, distort=False
    )
    assert kept[5]["data_samples"].metainfo["sample_token"] == index[5].sample_token
    assert len(kept[5]["data_samples"].gt_instances_3d) == 0
    assert kept[5]["data_samples"].gt_instances_3d.bboxes_3d.tensor.shape == (0, 9)


def test_no_ground_truth_at_all_is_said_at_once(queues, partly_empty):
    with pytest.raises(ConfigInvalid, match=r"no frame of split 'mini_train'.*filter_empty_gt=False"):
        queues(point_cloud_range=(500, 500, -5, 501, 501, 3))
    root, index = partly_empty
    lonely = NuScenesQueueDataset(index.select(["scene-0061"]), PIPELINE, root, point_cloud_range=RANGE)
    lonely._has_gt = np.arange(12) == 11  # one full frame, and every queue needs one before it
    with pytest.raises(ConfigInvalid, match=f"{MAX_REDRAWS} random queues"):
        lonely[0]


def test_draws_repeat_for_seed_epoch_and_row(queues):
    first, again = queues(seed=3), queues(seed=3)
    assert_same(first[7], again[7])
    again.set_epoch(1)
    assert not torch.equal(first[7]["images"], again[7]["images"])
    again.set_epoch(0)
    assert_same(first[7], again[7])
    assert not torch.equal(first[7]["images"], queues(seed=4)[7]["images"])
    assert not torch.equal(first[7]["images"], queues(distort=False)[7]["images"])


def test_bad_options(queues):
    with pytest.raises(ConfigInvalid, match="queue_length"):
        queues(queue_length=0)
    with pytest.raises(ConfigInvalid, match="point_cloud_range"):
        queues(point_cloud_range=(1, 2, 3))
    with pytest.raises(IndexError):
        queues()[14]


def test_workers_deliver_the_same_batches_in_every_epoch(queues):
    dataset = queues()
    loader = DataLoader(
        dataset, batch_size=2, num_workers=2, collate_fn=collate_queue, persistent_workers=True
    )
    for epoch in (0, 1):
        dataset.set_epoch(epoch)  # the living workers must notice
        batches = list(loader)
        assert len(batches) == 7
        direct = collate_queue([dataset[4], dataset[5]])
        for name, tensor in direct["inputs"].items():
            torch.testing.assert_close(batches[2]["inputs"][name], tensor, rtol=0, atol=0)
        assert batches[2]["inputs"]["images"].shape == (2, 4, 6, 3, 24, 40)
        tokens = [sample.sample_token for sample in batches[2]["data_samples"]]
        assert tokens == [sample.sample_token for sample in direct["data_samples"]]


def test_datasets_hold_no_devkit(queues, index, dataroot):
    import pickle

    for dataset in (queues(), StreamingFrames(index, PIPELINE, dataroot)):
        sent = pickle.dumps(dataset)
        assert b"nuscenes.nuscenes" not in sent
        assert len(sent) < 200_000


def test_streaming_follows_the_scenes(index, dataroot):
    stream = StreamingFrames(index, PIPELINE, dataroot)
    assert len(stream) == 14
    previous = None
    for item, frame in zip(stream, index, strict=True):
        if previous is not None and previous.scene_token != frame.scene_token:
            previous = None
        assert item["sample_token"] == frame.sample_token
        assert item["scene_token"] == frame.scene_token
        assert item["timestamp_us"] == frame.timestamp_us
        assert item["has_prev"] is (previous is not None)
        np.testing.assert_array_equal(item["can_bus"], relative_can_bus(frame, previous))
        assert item["can_bus"].dtype == item["lidar2img"].dtype == torch.float64
        images, lidar2img = PIPELINE.load(frame, dataroot)
        np.testing.assert_array_equal(item["images"], images)
        np.testing.assert_array_equal(item["lidar2img"], lidar2img)
        previous = frame


def test_streaming_with_workers_keeps_the_order(index, dataroot):
    stream = StreamingFrames(index.select(["scene-0553"]), PIPELINE, dataroot)
    loaded = list(DataLoader(stream, batch_size=None, num_workers=2))
    assert [item["sample_token"] for item in loaded] == [f.sample_token for f in index.scenes[1].frames]
    assert [item["has_prev"] for item in loaded] == [False] + [True] * 5


def test_a_broken_file_in_a_worker_is_still_named(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2})
    index = build_index(root, "v1.0-mini", "mini_train")
    (root / index[1].image_paths[4]).unlink()
    with pytest.raises(ImagesBroken, match=r"CAM_BACK_LEFT.*missing"):
        list(DataLoader(StreamingFrames(index, PIPELINE, root), batch_size=None, num_workers=1))


def assert_same(left, right):
    for name in ("images", "lidar2img", "can_bus", "has_prev"):
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=0)
    assert left["data_samples"].sample_token == right["data_samples"].sample_token
