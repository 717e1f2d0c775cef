"""DETR3D's behaviour: batches, what no camera sees, the training path, its configs."""

from __future__ import annotations

import pytest
import torch
from detector_cases import ROOT, data_sample, stacked, trainable_copy
from detr3d_cases import frame_inputs, golden, ground_truth, shrunk_config, shrunk_detector
from mmengine.config import Config
from torch import Tensor

from camera3d.detectors import Outputs, build_detector
from camera3d.detectors.detr3d.attention import ImageTable
from camera3d.detectors.detr3d.projection import project
from camera3d.errors import ShapeMismatch

# Batched matrix products sum in another order than single ones.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
RANGE = (-64.0, -64.0, -8.0, 64.0, 64.0, 8.0)  # of the made-up camera below: exact in binary


@pytest.fixture(scope="module")
def frames() -> list[dict[str, Tensor]]:
    """Two frames with other images and other cameras."""
    return [frame_inputs(golden("tiny"), name) for name in ("f0", "b1")]


@pytest.fixture(scope="module")
def singles(frames) -> list[Outputs]:
    with torch.inference_mode():
        return [shrunk_detector().encode(frame)[0] for frame in frames]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "swapped"])
def test_batch_of_two_equals_two_of_one(frames, singles, order):
    with torch.inference_mode():
        batch, _ = shrunk_detector().encode(stacked(*(frames[i] for i in order)))
    for row, i in enumerate(order):
        for name, values in batch.items():
            expected = singles[i][name][0]
            torch.testing.assert_close(values[row], expected, msg=lambda m, n=name: f"{n}: {m}", **TOLERANCE)


def test_same_input_same_bytes_and_inputs_untouched(frames, singles):
    before = {name: value.clone() for name, value in frames[0].items()}
    with torch.inference_mode():
        again, _ = shrunk_detector().encode(frames[0])
    for name, value in again.items():
        assert torch.equal(value, singles[0][name]), name
    for name, value in frames[0].items():
        assert torch.equal(value, before[name]), name


def test_other_cameras_than_configured(frames):
    """A squeezed batch and a missing camera, both named in one message."""
    images, lidar2img = frames[0]["images"], frames[0]["lidar2img"]
    with pytest.raises(ShapeMismatch) as caught:
        shrunk_detector().encode({"images": images[0], "lidar2img": lidar2img[:, :5]})
    assert "images: expected (B, 6, 3, H, W), got (6, 3, 96, 160)" in str(caught.value)
    assert "got (1, 5, 4, 4)" in str(caught.value)


class TestSight:
    def test_query_that_no_camera_sees_reads_zero(self, singles):
        visible, focal_feats = singles[0]["image_visible"], singles[0]["focal_feats"]
        seen = visible.any(-1)
        assert not seen.all()
        assert not focal_feats[~seen].any()
        assert focal_feats[seen].abs().sum(-1).gt(0).all()
        assert not singles[0]["image_points"][~visible].any()

    def test_no_camera_sees_anything(self, frames):
        blind = {**frames[0], "lidar2img": torch.zeros_like(frames[0]["lidar2img"])}
        outputs, _ = shrunk_detector().encode(blind)
        assert not outputs["image_visible"].any()
        assert not outputs["focal_feats"].any()
        assert outputs["query_boxes"].isfinite().all()
        (gradient,) = torch.autograd.grad(
            outputs["query_logits"].sum(), [shrunk_detector().pts_bbox_head.query_embedding.weight]
        )
        assert gradient.isfinite().all()

    @torch.inference_mode()
    def test_maps_of_a_blind_camera_are_not_read(self, frames, singles):
        """Numbers that would spoil every sum they take part in, even one with weight zero."""
        head, lidar2img = shrunk_detector().pts_bbox_head, frames[0]["lidar2img"].clone()
        lidar2img[:, 2] = 0
        spoilt = [singles[0][f"pv_feats_{level}"].clone() for level in range(4)]
        for feats in spoilt:
            feats[:, 2] = float("nan")
        outputs = head(spoilt, lidar2img=lidar2img, image_hw=(96, 160))
        assert outputs["query_logits"].isfinite().all()
        assert outputs["focal_feats"].any()

    def test_read_and_its_gradient_are_grid_samples(self, frames, singles):
        """The same sums written out: every query in every camera, weighted, hidden by the mask."""
        generator = torch.Generator().manual_seed(0)
        # Of the first layer.
        points, visible = (singles[0][name][:, 0].clone() for name in ("image_points", "image_visible"))
        maps = [
            torch.randn(1, 6, 8, h, w, generator=generator, dtype=torch.float64).requires_grad_()
            for h, w in ((12, 20), (3, 5), (1, 2))
        ]
        weights = torch.rand(*visible.shape, len(maps), generator=generator, dtype=torch.float64)
        points = points.double().requires_grad_()
        weights.requires_grad_()

        table = ImageTable.of_maps(maps, (96, 160), frames[0]["lidar2img"])
        ours = table.read(points, visible, weights)
        expected = torch.zeros_like(ours)
        for level, feats in enumerate(maps):
            grid = (2 * points[0] - 1).transpose(0, 1)[:, :, None]  # (N, Q, 1, 2)
            values = torch.nn.functional.grid_sample(feats[0], grid, align_corners=False)[..., 0]
            strength = (weights[0, :, :, level] * visible[0]).transpose(0, 1)[:, None]
            expected = expected + (values * strength).sum(0).T
        torch.testing.assert_close(ours, expected)

        direction = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
        inputs = [*maps, points, weights]
        for own, other in zip(
            torch.autograd.grad((ours * direction).sum(), inputs),
            torch.autograd.grad((expected * direction).sum(), inputs),
            strict=True,
        ):
            torch.testing.assert_close(own, other)


# A camera at the origin that looks along +x, in pixels of an image of 100×200: u = 100 - 50 y / x.
LOOKS_AHEAD = torch.tensor(
    [[100.0, -50.0, 0.0, 0.0], [50.0, 0.0, -50.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
POINTS = {
    "ahead": ((10.0, 0.0, 0.0), True),
    "behind": ((-10.0, 0.0, 0.0), False),
    "in the camera": ((0.0, 0.0, 0.0), False),
    "on the left border": ((10.0, 20.0, 0.0), False),
    "just inside it": ((10.0, 19.9, 0.0), True),
    "too high": ((1.0, 0.0, 2.0), False),
}


@pytest.mark.parametrize("point", POINTS)
def test_projection(point):
    metres, seen = POINTS[point]
    low, high = torch.tensor(RANGE).view(2, 3)
    reference = ((torch.tensor(metres) - low) / (high - low)).view(1, 1, 3)
    points, visible = project(reference, LOOKS_AHEAD.view(1, 1, 4, 4), RANGE, (100, 200))
    assert visible.item() is seen
    if point == "ahead":
        torch.testing.assert_close(points.view(2), torch.tensor([0.5, 0.5]))
    if not seen:
        assert not points.any()


def queue_of_one(frame: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: values[:, None] for name, values in frame.items()}


@pytest.fixture
def trainable() -> torch.nn.Module:
    return trainable_copy(shrunk_detector(100))


class TestTraining:
    truth = property(lambda self: ground_truth())
    empty = property(lambda self: data_sample(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long)))
    inputs = property(lambda self: queue_of_one(frame_inputs(golden("losses"), "f0")))

    def test_gradient_reaches_all_that_trains(self, trainable):
        statistics = {name: b.clone() for name, b in trainable.named_buffers() if "running" in name}
        losses = trainable.loss(self.inputs, [data_sample(self.truth.boxes, self.truth.labels)])
        assert set(losses) == {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"}
        sum(losses.values()).backward()
        assert [n for n, p in trainable.named_parameters() if p.requires_grad and p.grad is None] == []
        frozen = {n for n, p in trainable.named_parameters() if not p.requires_grad and "bn" not in n}
        assert {n.split(".")[1] for n in frozen if "downsample.1" not in n} == {
            "conv1",
            "layer1",
            "code_weights",
        }
        for name, buffer in trainable.named_buffers():
            if "running" in name:
                assert torch.equal(buffer, statistics[name]), name

    def test_frame_without_boxes(self, trainable):
        losses = trainable.loss(self.inputs, [self.empty])
        sum(losses.values()).backward()
        assert losses["loss_bbox"].item() == 0
        assert losses["loss_cls"].item() > 0
        assert all(p.grad.isfinite().all() for p in trainable.parameters() if p.grad is not None)

    def test_frame_without_boxes_beside_one_with(self, trainable):
        """Its box loss is the other frame's: both are divided by the boxes of the batch."""
        full = data_sample(self.truth.boxes, self.truth.labels)
        with torch.no_grad():
            alone = trainable.loss(self.inputs, [full])
            both = trainable.loss(stacked(self.inputs, self.inputs), [full, self.empty])
        torch.testing.assert_close(both["loss_bbox"], alone["loss_bbox"], rtol=1e-4, atol=0)
        assert both["loss_cls"] > alone["loss_cls"]

    def test_grid_mask_needs_no_gpu(self, trainable):
        trainable.grid_mask.prob = 1.0
        with torch.no_grad():
            losses = trainable.loss(self.inputs, [data_sample(self.truth.boxes, self.truth.labels)])
        assert all(value.isfinite() for value in losses.values())

    @torch.inference_mode()
    def test_predict_fills_data_samples(self, singles):
        inputs = queue_of_one(frame_inputs(golden("tiny"), "f0"))
        (sample,) = shrunk_detector().predict(inputs, [self.empty])
        assert sample.pred_instances_3d.labels_3d.tolist() == golden("tiny")["f0.det_labels"].tolist()
        bottom = torch.from_numpy(golden("tiny")["f0.det_boxes"][:, 2])
        torch.testing.assert_close(
            sample.pred_instances_3d.bboxes_3d.tensor[:, 2], bottom, rtol=1e-4, atol=1e-4
        )


def test_starts_as_released():
    head = build_detector(shrunk_config()).pts_bbox_head
    for layer in head.transformer.decoder.layers:
        assert not layer.attentions[1].attention_weights.weight.any()
    for branches in (head.cls_branches, head.reg_branches):
        for first, second in zip(branches[0].parameters(), branches[1].parameters(), strict=True):
            assert torch.equal(first, second)
    torch.testing.assert_close(head.cls_branches[0][-1].bias.sigmoid(), torch.full((10,), 0.01))


def test_student_runs():
    config = Config.fromfile(ROOT / "configs/student/detr3d_r50.py")
    config.model.pts_bbox_head.update(num_queries=20)
    detector = build_detector(config)
    assert not [key for key in detector.state_dict() if "conv_offset" in key]
    with torch.inference_mode():
        outputs, _ = detector.encode(frame_inputs(golden("tiny"), "f0"))
    maps = [feats.shape[-2:] for name, feats in outputs.items() if name.startswith("pv_feats")]
    assert maps == [(12, 20), (6, 10), (3, 5), (2, 3)]
    assert outputs["query_logits"].shape == (1, 6, 20, 10)
