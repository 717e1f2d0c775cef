"""BEVFormer's behaviour: batches, missing history, the training path, what it says about its outputs."""

from __future__ import annotations

import pytest
import torch
from bevformer_cases import frame_inputs, golden, shrunk_config, shrunk_detector
from detector_cases import ROOT, data_sample, stacked, trainable_copy
from mmengine.config import Config

from camera3d.boxes import encode_official
from camera3d.detectors import GroundTruth, Outputs, build_detector
from camera3d.detectors.base import eval_mode
from camera3d.errors import ConfigInvalid

# Batched matrix products sum in another order than single ones.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def assert_same_outputs(actual: Outputs, expected: Outputs, rows: tuple[int, int]) -> None:
    """Sample rows[0] of one equals sample rows[1] of the other, in every array."""
    assert actual.keys() == expected.keys()
    for name in actual:
        ours, theirs = actual[name][rows[0]], expected[name][rows[1]]
        torch.testing.assert_close(ours, theirs, msg=lambda m, n=name: f"{n}: {m}", **TOLERANCE)


@pytest.fixture(scope="module")
def singles() -> tuple[list[dict], list[Outputs], list[Outputs]]:
    """Two different frames; each encoded alone, without history and then with the first result as history."""
    frames = [frame_inputs(golden("tiny"), 0), frame_inputs(golden("tiny"), 1)]
    with torch.inference_mode():
        first = [shrunk_detector().encode(frame) for frame in frames]
        second = [
            shrunk_detector().encode(frame, state)[0] for frame, (_, state) in zip(frames, first, strict=True)
        ]
    return frames, [outputs for outputs, _ in first], second


class TestBatches:
    @pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "swapped"])
    def test_two_equal_two_of_one(self, singles, order):
        frames, first, second = singles
        batch = stacked(*(frames[i] for i in order))
        state = torch.cat([first[i]["bev_feats"] for i in order])
        with torch.inference_mode():
            without, _ = shrunk_detector().encode(batch)
            with_history, _ = shrunk_detector().encode(batch, state)
        for row, i in enumerate(order):
            assert_same_outputs(without, first[i], (row, 0))
            assert_same_outputs(with_history, second[i], (row, 0))

    def test_sample_without_history_equals_first_frame(self, singles):
        """One sample of a batch has a previous BEV, the other has none and does not look at its slot."""
        frames, first, second = singles
        slot = torch.cat([first[0]["bev_feats"], torch.full_like(first[1]["bev_feats"], 1e3)])
        with torch.inference_mode():
            mixed, _ = shrunk_detector().encode(
                {**stacked(*frames), "has_prev": torch.tensor([True, False])}, slot
            )
        assert_same_outputs(mixed, second[0], (0, 0))
        assert_same_outputs(mixed, first[1], (1, 0))

    def test_decode_is_per_sample(self, singles):
        frames, first, _ = singles
        with torch.inference_mode():
            found = shrunk_detector().decode(shrunk_detector().encode(stacked(*frames))[0])
        for row in range(2):
            alone = shrunk_detector().decode(first[row])[0]
            torch.testing.assert_close(found[row].scores, alone.scores, **TOLERANCE)
            torch.testing.assert_close(found[row].boxes, alone.boxes, rtol=1e-3, atol=1e-3)

    def test_same_input_same_bytes(self, singles):
        frames, first, _ = singles
        with torch.inference_mode():
            again, _ = shrunk_detector().encode(frames[0])
        for name, value in again.items():
            assert torch.equal(value, first[0][name]), name

    def test_no_camera_sees_anything(self, singles):
        """A projection that puts every pillar behind the cameras: finite, and no crash on empty queries."""
        frames, _, _ = singles
        blind = {**frames[0], "lidar2img": torch.zeros_like(frames[0]["lidar2img"])}
        with torch.inference_mode():
            outputs, _ = shrunk_detector().encode(blind)
        assert outputs["bev_feats"].isfinite().all()


@torch.inference_mode()
def test_focal_feats_are_what_the_locations_read(singles):
    """The stored locations and weights, applied to the projected BEV map, give the stored focal_feats."""
    detector, outputs = shrunk_detector(), singles[1][0]
    bev = outputs["bev_feats"]
    for layer, decoder_layer in enumerate(detector.pts_bbox_head.transformer.decoder.layers):
        value = decoder_layer.attentions[1].value_proj(bev.flatten(2).transpose(1, 2))[0]
        maps = value.T.unflatten(0, (8, -1)).unflatten(2, bev.shape[-2:])  # (heads, C/heads, H, W)
        grid = outputs["sampling_locations"][0, layer, :, :, 0].transpose(0, 1) * 2 - 1  # (heads, Q, P, 2)
        read = torch.nn.functional.grid_sample(maps, grid, align_corners=False)
        weights = outputs["attention_weights"][0, layer, :, :, 0].transpose(0, 1)[:, None]
        expected = (read * weights).sum(-1).permute(2, 0, 1).flatten(1)
        torch.testing.assert_close(outputs["focal_feats"][0, layer], expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("config", "image_hw"),
    [("teacher/bevformer_base.py", (928, 1600)), ("student/bevformer_small.py", (464, 800))],
)
def test_outputs_at_full_size(config, image_hw):
    detector = build_detector(ROOT / "configs" / config)
    specs = {spec.name: spec for spec in detector.output_specs(image_hw)}
    assert specs["pv_feats_0"].shape == (6, 256, 116, 200)
    assert specs["pv_feats_0"].stride == image_hw[0] / 116
    assert specs["pv_feats_3"].shape == (6, 256, 15, 25)
    assert specs["focal_feats"].shape == (6, 900, 256)


def test_tiny_runs():
    config = Config.fromfile(ROOT / "configs/student/bevformer_tiny.py")
    config.model.pts_bbox_head.update(num_queries=20)
    detector = build_detector(config)
    assert not [key for key in detector.state_dict() if "conv_offset" in key]
    with torch.inference_mode():
        outputs, _ = detector.encode(frame_inputs(golden("tiny"), 0))
    maps = {name: feats.shape for name, feats in outputs.items() if name.startswith("pv_feats")}
    assert maps == {"pv_feats_0": (1, 6, 256, 3, 5)}
    assert outputs["bev_feats"].shape == (1, 256, 50, 50)


def queue_inputs(has_prev: list[list[bool]]) -> dict[str, torch.Tensor]:
    """A batch of queues of three frames each."""
    queue = stacked(*(frame_inputs(golden("tiny"), frame) for frame in range(3)))
    inputs = {name: torch.stack([value] * len(has_prev)) for name, value in queue.items()}
    return {**inputs, "has_prev": torch.tensor(has_prev)}


@pytest.fixture
def trainable() -> torch.nn.Module:
    return trainable_copy(shrunk_detector())


class TestTraining:
    boxes = property(lambda self: torch.from_numpy(golden("losses")["gt_boxes"]))
    labels = property(lambda self: torch.from_numpy(golden("losses")["gt_labels"]))

    def test_queue_equals_streaming(self, trainable):
        with torch.no_grad():
            outputs = trainable.training_outputs(queue_inputs([[False, True, True]]))
        expected = golden("tiny")["f2.bev_embed"]
        ours = outputs["bev_feats"][0].flatten(1).T
        torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-3, atol=1e-3)

    def test_the_backbone_sees_all_frames_of_history_at_once(self, trainable):
        """And every frame by itself gives the same map."""
        batch, seen = queue_inputs([[False, True, True], [False, True, True]]), []
        batch["images"][1] += 0.1
        trainable.img_backbone.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
        found = trainable.history_bev(batch)
        cameras = batch["images"].shape[2]
        assert seen == [2 * 2 * cameras]
        with torch.no_grad(), eval_mode(trainable):
            state = None
            for t in range(2):
                _, state = trainable.encode({name: value[:, t] for name, value in batch.items()}, state)
        torch.testing.assert_close(found, state, **TOLERANCE)

    def test_a_backbone_that_is_computed_twice_learns_the_same(self):
        """`with_cp` keeps less for the backward pass: losses and gradients stay as they are."""
        found = []
        for with_cp in (False, True):
            torch.manual_seed(0)
            detector = trainable_copy(shrunk_detector())
            for block in detector.img_backbone.modules():
                if hasattr(block, "with_cp"):
                    block.with_cp = with_cp
            losses = detector.loss(
                queue_inputs([[False, True, True]]), [data_sample(self.boxes, self.labels)]
            )
            sum(losses.values()).backward()
            weights = {
                name: weight.grad for name, weight in detector.named_parameters() if weight.requires_grad
            }
            found.append((losses, weights))
        torch.testing.assert_close(found[1], found[0])

    def test_history_starts_anew_at_a_scene(self, trainable):
        """Second queue: a scene starts at its last frame, so the frames before must not matter."""
        inputs = queue_inputs([[False, True, True], [False, True, False]])
        with torch.no_grad():
            outputs = trainable.training_outputs(inputs)
            alone, _ = trainable.encode({name: value[1:, -1] for name, value in inputs.items()})
        torch.testing.assert_close(outputs["bev_feats"][1:], alone["bev_feats"], **TOLERANCE)

    def test_gradient_reaches_all_that_trains_and_nothing_of_the_history(self, trainable):
        inputs = queue_inputs([[False, True, True]])
        inputs["images"].requires_grad_(True)
        losses = trainable.loss(inputs, [data_sample(self.boxes, self.labels)])
        assert set(losses) == {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"}
        sum(losses.values()).backward()
        by_frame = inputs["images"].grad.abs().sum((0, 2, 3, 4, 5))
        assert by_frame[2] > 0
        assert by_frame[:2].eq(0).all()
        without = [n for n, p in trainable.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []
        frozen = [n for n, p in trainable.named_parameters() if not p.requires_grad]
        assert {n.split(".")[1] for n in frozen if "bn" not in n and "downsample" not in n} == {
            "conv1",
            "code_weights",
        }

    def test_batch_norm_stays_frozen(self, trainable):
        before = {n: b.clone() for n, b in trainable.named_buffers() if "running" in n}
        trainable.loss(queue_inputs([[False, True, True]]), [data_sample(self.boxes, self.labels)])
        for name, buffer in trainable.named_buffers():
            if "running" in name:
                assert torch.equal(buffer, before[name]), name
        assert trainable.training
        assert trainable.grid_mask.training

    def test_no_ground_truth(self, trainable):
        empty = data_sample(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long))
        losses = trainable.loss(queue_inputs([[False, True, True]]), [empty])
        sum(losses.values()).backward()
        assert losses["loss_bbox"].item() == 0
        assert losses["loss_cls"].item() > 0
        assert all(value.isfinite() for value in losses.values())

    def test_unmeasured_velocity_teaches_nothing(self, trainable):
        boxes = self.boxes.clone()
        boxes[0, 7:] = float("nan")
        losses = trainable.loss(queue_inputs([[False, True, True]]), [data_sample(boxes, self.labels)])
        assert all(value.isfinite() for value in losses.values())

    @pytest.mark.parametrize("broken", ["no width", "negative height", "not-a-number logits"])
    def test_broken_numbers_do_not_stop_the_assignment(self, broken):
        arrays, boxes = golden("losses"), self.boxes.clone()
        logits, predicted = torch.tensor(arrays["f0.cls"][0]), torch.tensor(arrays["f0.box"][0])
        if broken == "no width":
            boxes[3, 4] = 0
        elif broken == "negative height":
            boxes[3, 5] = -1
        else:
            logits[5] = float("nan")
        truth = GroundTruth(encode_official(boxes), self.labels)
        _, query, matched = shrunk_detector().criterion.match(
            logits[None, None], predicted[None, None], [truth]
        )
        assert sorted(matched[0].tolist()) == list(range(len(boxes)))
        assert len(set(query[0].tolist())) == len(boxes)

    def test_predict_fills_data_samples(self, trainable):
        trainable.eval()
        with torch.inference_mode():
            (sample,) = trainable.predict(
                queue_inputs([[False, True, True]]), [data_sample(self.boxes, self.labels)]
            )
        found = sample.pred_instances_3d
        arrays = golden("tiny")
        assert found.labels_3d.tolist() == arrays["f2.det_labels"].tolist()
        bottom = torch.from_numpy(arrays["f2.det_boxes"][:, 2])
        torch.testing.assert_close(found.bboxes_3d.tensor[:, 2], bottom, rtol=1e-3, atol=1e-3)


class TestConfigs:
    def test_no_such_file(self):
        with pytest.raises(ConfigInvalid, match=r"no config file configs/teacher/nothing\.py"):
            build_detector("configs/teacher/nothing.py")

    def test_unknown_detector(self):
        config = shrunk_config()
        config.model.type = "BEVDreamer"
        with pytest.raises(ConfigInvalid, match="BEVDreamer"):
            build_detector(config)

    def test_not_python(self, tmp_path):
        path = tmp_path / "broken.py"
        path.write_text("model = dict(")
        with pytest.raises(ConfigInvalid, match=r"broken\.py cannot be read"):
            build_detector(path)

    def test_no_type(self):
        config = shrunk_config()
        del config.model.type
        with pytest.raises(ConfigInvalid, match="None is not a registered detector"):
            build_detector(config)

    def test_no_model(self):
        with pytest.raises(ConfigInvalid, match="does not define model and inputs"):
            build_detector(Config({}))
