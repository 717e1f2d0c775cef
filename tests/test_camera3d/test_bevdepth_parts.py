"""The parts of BEVDepth by themselves: pooling, circle NMS, checkpoints, what a scene's start is given."""

from __future__ import annotations

import pytest
import torch
from bevdepth_cases import frame_inputs, shrunk_config, shrunk_detector, state_dict
from detector_cases import stacked
from torch import Tensor

from camera3d.boxes import move_boxes
from camera3d.checkpoint import load_official
from camera3d.detectors import Detections, build_detector
from camera3d.detectors.bevdepth.decode import circle_nms
from camera3d.detectors.bevdepth.detector import DEPTH_TARGET, LIDAR_DEPTH
from camera3d.detectors.bevdepth.voxel_pooling import voxel_index, voxel_pooling
from camera3d.detectors.history import StreamHistory
from camera3d.errors import CheckpointMismatch, ConfigInvalid, ShapeMismatch


class TestVoxelIndex:
    @pytest.mark.parametrize(
        ("metres", "cell"),
        [(-51.2, 0), (-51.9, 0), (-52.1, -1), (-50.5, 0), (51.1, 127), (51.3, 128), (0.1, 64)],
    )
    def test_truncates_towards_zero(self, metres, cell):
        points = torch.tensor([metres, 0.1, -12.9])
        index = voxel_index(points, torch.tensor([-51.2, -51.2, -5.0]), torch.tensor([0.8, 0.8, 8.0]))
        assert index.tolist() == [cell, 64, 0]

    def test_of_points_that_no_integer_holds(self):
        points = torch.tensor([float("inf"), float("-inf"), float("nan")])
        index = voxel_index(points, torch.zeros(3), torch.ones(3))
        assert index[0] > 1e6
        assert index[1] < 0
        assert index[2] < 0


def pooled(index: Tensor, feats: Tensor, grid=(3, 2, 1)) -> Tensor:
    """Of features (B, N, D, h, w, C)."""
    return voxel_pooling(index, lambda camera: feats[:, camera], grid, feats.shape[-1])


class TestVoxelPooling:
    def test_is_the_sum_over_points(self):
        generator = torch.Generator().manual_seed(0)
        index = torch.randint(-1, 4, (2, 3, 4, 2, 2, 3), generator=generator, dtype=torch.int32)
        index[..., 2] = torch.randint(-1, 2, index.shape[:-1], generator=generator)
        feats = torch.randn(2, 3, 4, 2, 2, 5, generator=generator)
        expected = torch.zeros(2, 5, 2, 3)
        for b in range(2):
            for (x, y, z), feat in zip(
                index[b].reshape(-1, 3).tolist(), feats[b].reshape(-1, 5), strict=True
            ):
                if 0 <= x < 3 and 0 <= y < 2 and z == 0:
                    expected[b, :, y, x] += feat
        assert index.reshape(-1, 3).min() < 0
        torch.testing.assert_close(pooled(index, feats), expected)

    def test_gradient_reaches_kept_points_alone(self):
        index = torch.tensor([[0, 0, 0], [0, 0, 0], [5, 0, 0], [2, 1, 0]], dtype=torch.int32)
        feats = torch.ones(1, 1, 4, 1, 1, 2, requires_grad=True)
        out = pooled(index.view(1, 1, 4, 1, 1, 3), feats)
        (out * torch.arange(12.0).view(1, 2, 2, 3)).sum().backward()
        grad = feats.grad.view(4, 2)
        assert grad.tolist() == [[0.0, 6.0], [0.0, 6.0], [0.0, 0.0], [5.0, 11.0]]

    def test_deterministic_algorithms_are_there(self):
        """A dump asks for them, and torch refuses an operation that has none."""
        index = torch.zeros(1, 1, 1, 1, 4, 3, dtype=torch.int32)
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        try:
            assert pooled(index, torch.ones(1, 1, 1, 1, 4, 1))[0, 0, 0, 0] == 4
        finally:
            torch.use_deterministic_algorithms(before)


def boxes_at(*centres: tuple[float, float]) -> Tensor:
    boxes = torch.zeros(len(centres), 9)
    boxes[:, :2] = torch.tensor(centres)
    return boxes


class TestCircleNMS:
    def test_radii_are_squared_metres_of_all_classes(self):
        found = Detections(
            boxes=boxes_at((0, 0), (1.9, 0), (2.1, 0), (3.9, 0), (8, 0)),
            scores=torch.tensor([0.5, 0.9, 0.4, 0.3, 0.2]),
            labels=torch.tensor([0, 1, 0, 1, 0]),
        )
        kept = circle_nms(found, 4.0, 83)
        # The best one, at 1.9 m, takes everything within 2 m; the one at 3.9 m is exactly there.
        assert kept.boxes[:, 0].tolist() == pytest.approx([1.9, 8.0])
        assert kept.labels.tolist() == [1, 0]

    def test_at_most(self):
        found = Detections(
            boxes=boxes_at((0, 0), (10, 0), (20, 0)),
            scores=torch.tensor([0.1, 0.3, 0.2]),
            labels=torch.zeros(3, dtype=torch.long),
        )
        assert circle_nms(found, 1.0, 2).boxes[:, 0].tolist() == [10.0, 20.0]

    def test_of_nothing(self):
        none = Detections(
            boxes=torch.zeros(0, 9), scores=torch.zeros(0), labels=torch.zeros(0, dtype=torch.long)
        )
        assert len(circle_nms(none, 1.0, 83).boxes) == 0


class TestCheckpoints:
    @pytest.mark.parametrize("ema", [False, True])
    def test_of_lightning(self, tmp_path, ema):
        """Weights under `state_dict` with `model.` in front, amid what Lightning keeps."""
        source = state_dict(shrunk_detector())
        content = {"state_dict": {f"model.{key}": value for key, value in source.items()}, "epoch": 23}
        if not ema:
            content |= {
                "global_step": 42216,
                "pytorch-lightning_version": "1.6.0",
                "callbacks": {"ModelCheckpoint": {"best_model_score": None, "current_score": torch.ones(())}},
                "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}}],
                "lr_schedulers": [{"milestones": {19: 1, 23: 1}}],
                "hyper_parameters": {"gpus": 8, "class_names": ["car"]},
            }
        torch.save(content, tmp_path / "checkpoint.ckpt")
        detector = build_detector(shrunk_config())
        load_official(detector, tmp_path / "checkpoint.ckpt")
        assert all(torch.equal(value, source[key]) for key, value in detector.state_dict().items())

    def test_all_that_differs_is_listed(self):
        weights = {f"model.{key}": value for key, value in state_dict(shrunk_detector()).items()}
        weights["model.head.extra"] = weights.pop("model.head.shared_conv.bn.bias")
        with pytest.raises(CheckpointMismatch, match=r"(?s)head\.shared_conv\.bn\.bias.*head\.extra"):
            load_official(build_detector(shrunk_config()), weights)

    def test_of_another_grid(self):
        """Of equal shape, so that nothing but the values tells."""
        weights = state_dict(shrunk_detector())
        weights["backbone.frustum"] = weights["backbone.frustum"] + 1
        weights["backbone.voxel_coord"] = weights["backbone.voxel_coord"] - 2
        detector = build_detector(shrunk_config())
        before = detector.head.shared_conv.bn.bias.clone()
        with pytest.raises(CheckpointMismatch, match=r"voxel_coord and backbone\.frustum"):
            load_official(detector, weights)
        assert torch.equal(detector.head.shared_conv.bn.bias, before)


class TestScenes:
    """With two key frames: which frame stands for the one before."""

    def test_the_key_frame_itself_where_a_scene_starts(self):
        detector, frame = shrunk_detector("two"), frame_inputs("t")
        with torch.inference_mode():
            alone, state = detector.encode(frame)
            again, _ = detector.encode(frame, state)
        first, second = alone["bev_lifted"].chunk(2, dim=1)
        torch.testing.assert_close(first, second)
        torch.testing.assert_close(again["bev_lifted"], alone["bev_lifted"])

    def test_has_prev_decides_sample_by_sample(self):
        detector, key, before = shrunk_detector("two"), frame_inputs("t"), frame_inputs("t.1")
        with torch.inference_mode():
            _, state = detector.encode(stacked(before, before))
            keys = {**stacked(key, key), "has_prev": torch.tensor([True, False])}
            both, _ = detector.encode(keys, state)
            followed, _ = detector.encode(key, detector.encode(before)[1])
            alone, _ = detector.encode(key)
        for row, expected in enumerate((followed, alone)):
            torch.testing.assert_close(both["bev_lifted"][row], expected["bev_lifted"][0])
        assert not torch.allclose(both["bev_lifted"][0], both["bev_lifted"][1])

    def test_one_key_frame_has_no_state(self):
        with torch.inference_mode():
            assert shrunk_detector().encode(frame_inputs("f0"))[1] is None

    @pytest.mark.parametrize("kind", ["one", "two"])
    def test_whether_there_is_a_state_is_told_and_it_holds_no_gradient(self, kind):
        detector = shrunk_detector(kind)
        outputs, state = detector.encode(frame_inputs("t"))
        assert outputs["bev_feats"].requires_grad
        assert (state is not None) == detector.has_state == (kind == "two")
        assert not any(values.requires_grad for values in state or ())

    def test_a_stream_equals_queues(self):
        """Two slots, of which one starts anew at the second step."""
        detector, history = shrunk_detector("two"), StreamHistory()
        # A training has no such transform: see NuScenesQueueDataset.
        key, before = (
            {name: values for name, values in frame_inputs(frame).items() if name != "bev_transform"}
            for frame in ("t", "t.1")
        )
        frame_of = {"key": key, "before": before}
        depth = torch.full((2, 1, 6, 128, 352), 20.0)
        with torch.inference_mode():
            for names, has_prev in ((("before", "before"), (False, False)), (("key", "key"), (True, False))):
                frames = stacked(*(frame_of[name] for name in names))
                batch = {name: values[:, None] for name, values in frames.items()}
                batch |= {"has_prev": torch.tensor(has_prev)[:, None], LIDAR_DEPTH: depth}
                streamed = history.outputs(detector, batch)
            queues = [
                {name: torch.stack((first[name], key[name]), dim=1) for name in key}
                | {LIDAR_DEPTH: depth[:1]}
                for first in (before, key)
            ]
            trained = [detector.training_outputs(queue) for queue in queues]
        assert DEPTH_TARGET in streamed
        for slot, wanted in enumerate(trained):
            assert streamed.keys() == wanted.keys()
            for name, values in wanted.items():
                torch.testing.assert_close(streamed[name][slot], values[0], msg=name)

    def test_training_looks_at_the_frame_before(self):
        detector, key, before = shrunk_detector("two"), frame_inputs("t"), frame_inputs("t.1")
        queue = {name: torch.stack((before[name], key[name]), dim=1) for name in key}
        queue["has_prev"] = torch.tensor([[False, True]])
        with torch.inference_mode():
            trained = detector.training_outputs(queue)
            streamed, _ = detector.encode(key, detector.encode(before)[1])
        for name, values in trained.items():
            torch.testing.assert_close(values, streamed[name], msg=name)


class TestEgoFrame:
    """New training places the cameras in the frame that the boxes are in."""

    @staticmethod
    def sensor2ego(ego_frame: str) -> Tensor:
        detector = build_detector(shrunk_config(ego_frame=ego_frame))
        frame = frame_inputs("f0")
        poses = torch.eye(4, dtype=torch.float64).repeat(1, 6, 1, 1)
        poses[0, :, 0, 3] = torch.arange(6) / 10 + 100
        mean = torch.eye(4, dtype=torch.float64)[None].clone()
        mean[0, 0, 3] = 100.25
        return detector._rig({**frame, "cam_ego2global": poses, "ego2global": mean}).sensor2ego[0]

    def test_default_is_the_mean_one(self):
        assert shrunk_config().model.ego_frame == "camera"
        config = shrunk_config()
        del config.model["ego_frame"]
        detector = build_detector(config)
        assert detector.ego_frame == "mean"
        assert {"cam_ego2global", "ego2global"} <= set(detector.inputs)

    def test_cameras_move_to_where_the_boxes_are(self):
        placed, released = self.sensor2ego("mean"), self.sensor2ego("camera")
        moved = torch.arange(6, dtype=torch.float64) / 10 - 0.25
        torch.testing.assert_close(placed[:, 0, 3] - released[:, 0, 3], moved, atol=1e-5, rtol=0)
        torch.testing.assert_close(placed[:, 1:], released[:, 1:])


def test_boxes_are_given_in_the_lidar_frame():
    detector, frame = shrunk_detector(), frame_inputs("f0")
    lidar2ego = torch.tensor(
        [[0.0, 1, 0, 0.9], [-1, 0, 0, 0.1], [0, 0, 1, 1.8], [0, 0, 0, 1]], dtype=torch.float64
    )
    with torch.inference_mode():
        outputs, _ = detector.encode({**frame, "lidar2ego": lidar2ego[None]})
    (found,), (ego,) = detector.decode(outputs), detector.decode_ego(outputs)
    assert len(found.boxes) == len(ego.boxes) > 0
    # Ahead of the vehicle is along y of the LiDAR, whose frame is turned by a quarter.
    torch.testing.assert_close(found.boxes[:, 1], ego.boxes[:, 0] - 0.9)
    torch.testing.assert_close(found.boxes[:, 0], -(ego.boxes[:, 1] - 0.1))
    torch.testing.assert_close(found.boxes[:, 3:6], ego.boxes[:, 3:6])
    torch.testing.assert_close(move_boxes(found.boxes, lidar2ego)[:, :6], ego.boxes[:, :6])
    turn = found.boxes[:, 6] - ego.boxes[:, 6]
    torch.testing.assert_close(turn.cos(), torch.zeros_like(turn), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": (1, 2)}, r"tasks: \[1, 2\] hold 3 classes, class_names 10"),
        ({"image_hw": (48, 96)}, r"image_hw: expected multiples of 32, got \(48, 96\)"),
        ({"key_frames": 3}, "key_frames: expected 1 or 2, got 3"),
        ({"ego_frame": "lidar"}, "ego_frame: expected one of mean, camera"),
    ],
)
def test_options_that_cannot_work(changes, says):
    with pytest.raises(ConfigInvalid, match=says):
        build_detector(shrunk_config(**changes))


def test_images_of_another_size_are_refused():
    frame = frame_inputs("f0")
    with pytest.raises(ShapeMismatch, match=r"frustum belongs to one size.*\(B, 6, 3, 128, 352\)"):
        shrunk_detector().encode({**frame, "images": frame["images"][..., :320]})
