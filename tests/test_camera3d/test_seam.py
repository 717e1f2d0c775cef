"""The seam every detector stands behind: what it says of its outputs, and how others run it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import bevformer_cases
import detr3d_cases
import pytest
import torch
from detector_cases import ROOT, data_sample, stacked
from torch import Tensor
from torch.utils._pytree import tree_leaves

from camera3d.boxes import encode_official
from camera3d.detectors import Detections, Detector, OutputSpec, build_detector
from camera3d.detectors.base import CameraDetector
from camera3d.detectors.history import StreamHistory
from camera3d.detectors.protocol import (
    BEV_MAP,
    DENSE_HEAD,
    IMAGE_MAP,
    QUERY,
    ROLES,
    STARTS,
    GroundTruth,
    TeacherHead,
)
from camera3d.detectors.query_based.decode import decode_queries
from camera3d.errors import OutputsNotFinite, StartUnfit
from camera3d.streaming import detections_of, run_scene

CPU = torch.device("cpu")
IMAGE_HW = (96, 160)
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
CASES = {"bevformer": bevformer_cases, "detr3d": detr3d_cases}
GOLDEN_FRAMES = {"bevformer": (0, 1), "detr3d": ("f0", "b1")}

# Of the shrunk detectors: 2 layers, 30 queries, 10 classes, 6 cameras, 256 channels. BEVFormer-Small is meant
# for smaller images than DETR3D, so its cells are smaller too.
STRIDES = {"bevformer": (4, 8, 16, 32), "detr3d": (8, 16, 32, 64)}
MAPS = {
    4: (6, 256, 24, 40),
    8: (6, 256, 12, 20),
    16: (6, 256, 6, 10),
    32: (6, 256, 3, 5),
    64: (6, 256, 2, 3),
}
QUERIES = {
    "query_logits": (2, 30, 10),
    "query_boxes": (2, 30, 10),
    "query_feats": (2, 30, 256),
    "reference_points": (2, 30, 3),
    "focal_feats": (2, 30, 256),
}
READS = {
    "bevformer": {
        "bev_feats": (256, 12, 12),
        "sampling_locations": (2, 30, 8, 1, 4, 2),
        "attention_weights": (2, 30, 8, 1, 4),
    },
    "detr3d": {
        "image_points": (2, 30, 6, 2),
        "image_visible": (2, 30, 6),
        "image_weights": (2, 30, 6, 4),
    },
}
EXACT = {"query_boxes", "reference_points", "sampling_locations", "image_points"}
METRES = {"bev_feats", "reference_points"}


@pytest.fixture(scope="module", params=CASES)
def family(request) -> SimpleNamespace:
    """A family's shrunk detector, its name, golden frames, and the outputs of a batch of both."""
    cases = CASES[request.param]
    frames = [cases.frame_inputs(cases.golden("tiny"), name) for name in GOLDEN_FRAMES[request.param]]
    detector = cases.shrunk_detector()
    with torch.inference_mode():
        outputs, _ = detector.encode(stacked(*frames))
    return SimpleNamespace(
        name=request.param,
        detector=detector,
        frames=frames,
        outputs=outputs,
        specs=detector.output_specs(IMAGE_HW),
        config=cases.shrunk_config(),
    )


class TestOutputs:
    def test_is_a_detector(self, family):
        assert isinstance(family.detector, Detector)
        assert set(family.detector.inputs) == set(family.frames[0])

    def test_names_and_shapes(self, family):
        maps = {f"pv_feats_{level}": MAPS[stride] for level, stride in enumerate(STRIDES[family.name])}
        expected = {**maps, **QUERIES, **READS[family.name]}
        assert {spec.name: spec.shape for spec in family.specs} == expected
        assert {name: tuple(values.shape) for name, values in family.outputs.items()} == {
            name: (2, *shape) for name, shape in expected.items()
        }
        assert len(family.specs) == len(expected)

    def test_roles(self, family):
        roles = {spec.name: spec.role for spec in family.specs}
        assert set(roles.values()) <= set(ROLES)
        maps = {f"pv_feats_{level}": IMAGE_MAP for level in range(4)} | {"bev_feats": BEV_MAP}
        assert roles == {name: maps.get(name, QUERY) for name in roles}

    def test_dimensions(self, family):
        sizes: dict[str, int] = {}
        for spec in family.specs:
            names = spec.dimension_names
            assert len(names) == len(set(names)) == len(spec.shape), spec.name
            assert ("query" in names) == (spec.role == QUERY), spec.name
            for name, size in zip(names, spec.shape, strict=True):
                assert sizes.setdefault(name, size) == size, f"{spec.name}: {name}"

    def test_dtypes(self, family):
        for spec in family.specs:
            is_bool = family.outputs[spec.name].dtype == torch.bool
            expected = "bool" if is_bool else "float32" if spec.name in EXACT else "float16"
            assert spec.dtype == expected, spec.name

    def test_strides_and_metres(self, family):
        strides = [spec.stride for spec in family.specs if spec.role == IMAGE_MAP]
        assert strides == list(STRIDES[family.name])
        for spec in family.specs:
            assert (spec.stride is None) == (spec.role != IMAGE_MAP), spec.name
            where = (RANGE, "lidar") if spec.name in METRES else (None, None)
            assert (spec.extent_m, spec.frame) == where, spec.name


class TestDecode:
    def test_half_precision_is_decoded_in_full(self, family):
        half = {name: family.outputs[name].bfloat16() for name in ("query_logits", "query_boxes")}
        ours = family.detector.decode(half)
        expected = family.detector.decode({name: values.float() for name, values in half.items()})
        for mine, full in zip(ours, expected, strict=True):
            assert mine.boxes.dtype == mine.scores.dtype == torch.float32
            assert vars(mine).keys() == vars(full).keys()
            assert all(torch.equal(values, getattr(full, name)) for name, values in vars(mine).items())

    def test_last_layer_counts(self, family):
        changed = {name: values.clone() for name, values in family.outputs.items()}
        for name in ("query_logits", "query_boxes"):
            changed[name][:, :-1] = 0
        for mine, full in zip(
            family.detector.decode(changed), family.detector.decode(family.outputs), strict=True
        ):
            assert torch.equal(mine.boxes, full.boxes)
            assert torch.equal(mine.scores, full.scores)


def sure_of(centres: list[tuple[float, float, float]]) -> dict[str, Tensor]:
    """Predictions of one sample and layer: a query sure of a car at each of these places."""
    boxes = torch.tensor([(*centre, 4.0, 2.0, 1.5, 0.0, 0.0, 0.0) for centre in centres])
    logits = torch.full((len(centres), 10), -9.0)
    logits[:, 0] = 9.0
    return {"query_logits": logits[None, None], "query_boxes": encode_official(boxes)[None, None]}


def cars(detector: Detector, outputs: dict[str, Tensor]) -> set[tuple[float, ...]]:
    """Where a detector reports cars."""
    (found,) = detector.decode(outputs)
    return {tuple(box[:3].tolist()) for box in found.boxes[found.labels == 0]}


class TestReportedRange:
    """Boxes with a centre outside of `post_center_range` are dropped; it comes from the config's range."""

    @pytest.mark.parametrize("config", ["teacher/bevformer_base.py", "teacher/detr3d_r101.py"])
    def test_teachers_report_as_released(self, config):
        detector = build_detector(ROOT / "configs" / config)
        assert detector.post_center_range == (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)

    def test_it_follows_the_range(self, family):
        centres = [(0.0, 0.0, 0.0), (39.5, 0.0, 0.0), (41.0, 0.0, 0.0), (0.0, -61.0, 0.0), (0.0, 61.5, 0.0)]
        high = [(0.0, 0.0, 11.0), (0.0, 0.0, 13.0), (0.0, 0.0, -9.5), (0.0, 0.0, -10.5)]
        outputs = sure_of(centres + high)
        assert cars(family.detector, outputs) == {*centres[:4], high[2]}

        config = copy.deepcopy(family.config)
        config.model.point_cloud_range = (-30.0, -51.2, -5.0, 30.0, 60.0, 12.0)
        other = build_detector(config)
        assert other.post_center_range == (-40.0, -61.2, -10.0, 40.0, 70.0, 12.0)
        assert cars(other, outputs) == {*centres[:2], *centres[3:], high[0], high[2]}

    def test_a_config_may_set_it(self, family):
        config = copy.deepcopy(family.config)
        config.model.post_center_range = (-1.0, -1.0, -1.0, 1.0, 1.0, 1.0)
        inside = (0.5, 0.0, 0.0)
        assert cars(build_detector(config), sure_of([inside, (1.5, 0.0, 0.0)])) == {inside}

    def test_decoding_asks_for_it(self):
        outputs = sure_of([(0.0, 0.0, 0.0)])
        with pytest.raises(TypeError, match="center_range"):
            decode_queries(outputs["query_logits"][0, 0], outputs["query_boxes"][0, 0])


class TestStart:
    @staticmethod
    def own_head(name: str) -> TeacherHead:
        detector = CASES[name].shrunk_detector()
        return TeacherHead(
            weights=detector.head_weights(), specs=detector.output_specs(IMAGE_HW), image_scale=1.0
        )

    @pytest.mark.parametrize("kind", STARTS)
    def test_from_an_equal_head(self, family, kind):
        """Every kind that a family knows starts with the teacher's weights; the others are refused."""
        own = family.detector.state_dict()
        if (family.name, kind) == ("detr3d", "head_and_encoder"):
            with pytest.raises(StartUnfit, match="DETR3D has no encoder"):
                family.detector.start_from(kind, self.own_head(family.name), image_scale=1.0)
            return
        got = family.detector.start_from(kind, self.own_head(family.name), image_scale=1.0)
        assert bool(got) == (kind != "none")
        for key, value in got.items():
            torch.testing.assert_close(value, own[key], msg=key)
            assert value.data_ptr() != own[key].data_ptr(), key
        parts = {key.split(".")[1] for key in got}
        queries = {"query_embedding", "cls_branches", "reg_branches"}
        assert (parts == queries) == (kind == "released")
        assert any("transformer.decoder" in key for key in got) == (kind in ("head", "head_and_encoder"))
        assert any("transformer.encoder" in key for key in got) == (kind == "head_and_encoder")

    @pytest.mark.parametrize("kind", ["released", "head"])
    def test_another_range_is_refused(self, family, kind):
        config = copy.deepcopy(family.config)
        config.model.point_cloud_range = (-51.2, -51.2, -5.0, 51.2, 51.2, 4.0)
        with pytest.raises(StartUnfit, match="point_cloud_range"):
            build_detector(config).start_from(kind, self.own_head(family.name), image_scale=1.0)

    def test_a_head_of_another_family_is_refused(self, family):
        (other,) = set(CASES) - {family.name}
        with pytest.raises(StartUnfit):
            family.detector.start_from("head", self.own_head(other), image_scale=1.0)


class TestState:
    def test_a_family_says_whether_it_has_one_and_it_holds_no_gradient(self, family):
        outputs, state = family.detector.encode(family.frames[0])
        assert any(values.requires_grad for values in outputs.values())
        assert (state is not None) == family.detector.has_state
        assert not any(leaf.requires_grad for leaf in tree_leaves(state) if torch.is_tensor(leaf))

    def test_a_stream_hands_on_whatever_a_family_calls_its_state(self):
        """Told which of its slots start anew; nothing but `inputs` and that comes out of the batch."""

        class Opaque:
            inputs = ("images",)
            streamed_outputs = CameraDetector.streamed_outputs

            def encode(self, frame, state=None):
                return frame, {"seen": [*(state["seen"] if state else []), frame["has_prev"].tolist()]}

        history, detector = StreamHistory(), Opaque()
        for has_prev in ([False, False], [True, False]):
            batch = {
                "images": torch.zeros(2, 1, 3),
                "can_bus": torch.zeros(2, 1, 18),
                "has_prev": torch.tensor(has_prev)[:, None],
            }
            outputs = history.outputs(detector, batch)
            assert {name: tuple(values.shape) for name, values in outputs.items()} == {
                "images": (2, 3),
                "has_prev": (2,),
            }
        assert history._state == {"seen": [[False, False], [True, False]]}
        history.forget()
        history.outputs(detector, batch)
        assert history._state == {"seen": [[True, False]]}


class Counts:
    """A detector whose state is how many frames of the scene it has seen."""

    inputs = ("images",)

    def __init__(self) -> None:
        self.calls: list[tuple[float, object, bool]] = []

    def encode(self, frame, state=None) -> tuple[dict[str, Tensor], int]:
        assert frame.keys() == {"images"}
        (number,) = frame["images"].tolist()
        self.calls.append((number, state, torch.is_inference_mode_enabled()))
        return {"doubled": frame["images"] * 2}, (state or 0) + 1


def items(*numbers: float) -> list[dict]:
    """Frames that are one number each."""
    return [
        {"sample_token": f"sample {number}", "images": torch.tensor(number), "has_prev": True}
        for number in numbers
    ]


class TestRunScene:
    def test_state_is_handed_on_and_ends_with_the_scene(self):
        detector = Counts()
        for scene in (items(1.0, 2.0, 3.0), items(4.0, 5.0)):
            found = list(run_scene(detector, scene, CPU))
            assert [item for item, _ in found] == scene
            for item, outputs in found:
                assert torch.equal(outputs["doubled"], 2 * item["images"][None])
        assert [call[:2] for call in detector.calls] == [(1, None), (2, 1), (3, 2), (4, None), (5, 1)]

    def test_a_frame_is_encoded_when_it_is_asked_for(self):
        detector = Counts()
        scene = run_scene(detector, iter(items(1.0, 2.0)), CPU)
        assert detector.calls == []
        next(scene)
        assert len(detector.calls) == 1

    def test_the_forward_pass_alone_is_in_the_context(self):
        entered = []

        @contextmanager
        def context() -> Iterator[None]:
            entered.append("in")
            yield
            entered.append("out")

        detector = Counts()
        for number, _ in enumerate(run_scene(detector, items(1.0, 2.0), CPU, context), 1):
            assert entered == ["in", "out"] * number
        assert not any(inference for *_, inference in detector.calls)

        for _ in run_scene(detector, items(3.0), CPU):
            assert not torch.is_inference_mode_enabled()
        assert detector.calls[-1] == (3.0, None, True)

    def test_families(self, family):
        """Frame by frame as by hand; a second run starts anew."""
        scene = [{name: values[0] for name, values in frame.items()} for frame in family.frames]
        state, expected = None, []
        with torch.inference_mode():
            for frame in family.frames:
                outputs, state = family.detector.encode(frame, state)
                expected.append(outputs)
        for _ in range(2):
            found = [outputs for _, outputs in run_scene(family.detector, scene, CPU)]
            for ours, by_hand in zip(found, expected, strict=True):
                assert ours.keys() == by_hand.keys()
                assert all(torch.equal(values, by_hand[name]) for name, values in ours.items())


def first_of(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of the first sample, as a batch of one."""
    return {name: values[:1].clone() for name, values in outputs.items()}


class TestDetectionsOf:
    def test_are_those_of_the_decoder(self, family):
        outputs = first_of(family.outputs)
        found = detections_of(family.detector, family.specs, outputs, "token")
        (expected,) = family.detector.decode(outputs)
        assert len(found.scores)
        for name, values in vars(expected).items():
            assert torch.equal(getattr(found, name), values), name

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_what_is_not_finite_is_named_and_counted(self, family, value):
        outputs = first_of(family.outputs)
        outputs["query_logits"][0, 1, 4, :3] = value
        outputs["query_boxes"][0, 0, 7, 2] = value
        with pytest.raises(OutputsNotFinite) as caught:
            detections_of(family.detector, family.specs, outputs, "the token")
        assert str(caught.value).startswith(
            "sample the token: 3 of the 600 numbers of query_logits, 1 of the 600 numbers of query_boxes that"
            " were predicted are not finite."
        )

    def test_maps_are_not_predictions(self, family):
        outputs = first_of(family.outputs)
        outputs["pv_feats_0"][:] = float("nan")
        assert len(detections_of(family.detector, family.specs, outputs, "token").scores)


class Heatmaps(CameraDetector):
    """The least that a family has to say: maps without queries, no state, no start."""

    class_names = ("car",)

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        return (
            OutputSpec(
                name="heatmap", role=DENSE_HEAD, shape=(1, 2, 2), dimension_names=("class", "bev_y", "bev_x")
            ),
        )

    def encode(self, frame, state=None) -> tuple[dict[str, Tensor], None]:
        assert state is None
        return {"heatmap": frame["images"].mean((1, 2, 3, 4)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)}, None

    def decode(self, outputs) -> list[Detections]:
        return [
            Detections(
                boxes=torch.tensor([[1.0, 2.0, 3.0, 4.0, 2.0, 1.0, 0.5, 0.0, 0.0]]),
                scores=heatmap.flatten()[:1],
                labels=torch.zeros(1, dtype=torch.long),
            )
            for heatmap in outputs["heatmap"]
        ]

    def detection_loss(self, outputs, ground_truth) -> dict[str, Tensor]:
        counts = outputs["heatmap"].new_tensor([len(truth.boxes) for truth in ground_truth])
        return {"loss_count": (outputs["heatmap"][:, 0, 0, 0] - counts).abs().sum()}


class TestLeastFamily:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0, 2.0, 1.0, 0.5, 0.0, 0.0]] * 3)
    # Two queues of two frames; the images of a frame are one number.
    batch = property(
        lambda self: {
            "images": torch.tensor([[9.0, 0.25], [9.0, 5.0]])[:, :, None, None, None, None].expand(
                -1, -1, 6, 3, 4, 4
            ),
            "lidar2img": torch.eye(4).expand(2, 2, 6, 4, 4),
            "has_prev": torch.tensor([[False, True]] * 2),
        }
    )

    @property
    def samples(self) -> list:
        """The first with three boxes, the second with none."""
        return [data_sample(boxes, torch.zeros(len(boxes)).long()) for boxes in (self.boxes, self.boxes[:0])]

    def test_is_a_detector_without_head(self):
        detector = Heatmaps()
        assert isinstance(detector, Detector)
        assert detector.head_weights() == {}
        assert detector.sampling_projections({}) == []
        nothing = TeacherHead(weights={}, specs=(), image_scale=1.0)
        assert detector.start_from("none", nothing, image_scale=1.0) == {}
        with pytest.raises(StartUnfit, match="Heatmaps has no head"):
            detector.start_from("head", nothing, image_scale=1.0)

    def test_last_frame_of_each_queue(self):
        outputs = Heatmaps().training_outputs(self.batch)
        torch.testing.assert_close(outputs["heatmap"][:, 0, 0, 0], torch.tensor([0.25, 5.0]))

    def test_the_three_modes_of_mmengine(self):
        detector = Heatmaps()
        losses = detector(self.batch, self.samples, mode="loss")
        assert {name: value.item() for name, value in losses.items()} == {"loss_count": 2.75 + 5.0}
        raw = detector(self.batch, self.samples, mode="tensor")
        assert raw["heatmap"].shape == (2, 1, 2, 2)
        for sample, score in zip(
            detector(self.batch, self.samples, mode="predict"), (0.25, 5.0), strict=True
        ):
            found = sample.pred_instances_3d
            torch.testing.assert_close(found.bboxes_3d.gravity_center, self.boxes[:1, :3])
            torch.testing.assert_close(found.scores_3d, torch.tensor([score]))

    def test_dense_predictions_must_be_finite(self):
        detector = Heatmaps()
        specs = detector.output_specs(IMAGE_HW)
        outputs = {"heatmap": torch.ones(1, 1, 2, 2)}
        assert len(detections_of(detector, specs, outputs, "token").scores) == 1
        outputs["heatmap"][0, 0, 1] = float("nan")
        with pytest.raises(OutputsNotFinite, match="2 of the 4 numbers of heatmap"):
            detections_of(detector, specs, outputs, "token")


def test_loss_of_the_seam_is_the_criterion(family):
    """Batch first: the second sample's truth is compared with the second sample."""
    truths = [
        GroundTruth(torch.tensor([[5.0, 5.0, 0.0, 4.0, 2.0, 1.5, 0.3, 0.0, 0.0]]), torch.tensor([0])),
        GroundTruth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long)),
    ]
    detector, outputs = family.detector, family.outputs
    losses = detector.detection_loss(outputs, truths)
    assert set(losses) == {"loss_cls", "loss_bbox", "d0.loss_cls", "d0.loss_bbox"}
    expected = detector.criterion(
        outputs["query_logits"], outputs["query_boxes"], truths, detector.pts_bbox_head.code_weights
    )
    assert all(torch.equal(value, expected[name]) for name, value in losses.items())
    # The first sample alone has boxes: their loss is the one it has by itself.
    alone = detector.detection_loss(first_of(outputs), truths[:1])
    for name in ("loss_bbox", "d0.loss_bbox"):
        torch.testing.assert_close(losses[name], alone[name])
