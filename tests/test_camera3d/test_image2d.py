"""Any of mmdet's detectors behind the seam: outputs, detections, losses, weights under mmdet's keys."""

from __future__ import annotations

import copy

import pytest
import torch
from coco_cases import CLASSES, VERSION, write_coco
from image2d_cases import DETECTORS, ROOT, write_config
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.registry import DefaultScope

from camera3d.checkpoint import load_official
from camera3d.data import DatasetChoice, ImagePipeline, collate_queue, streaming_frames
from camera3d.data.coco.train_dataset import CocoTrainDataset
from camera3d.detectors import Detector, build_detector
from camera3d.detectors.builder import draw_weights, load_config
from camera3d.detectors.protocol import GroundTruth, TeacherHead
from camera3d.detectors.samples import ground_truth
from camera3d.errors import CheckpointMismatch, ConfigInvalid, StartUnfit
from camera3d.streaming import frame_inputs

NAMES = tuple(DETECTORS)


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    return {name: load_config(write_config(folder, name)) for name in NAMES}


def built(config):
    torch.manual_seed(0)
    detector = build_detector(config)
    draw_weights(detector)
    return detector


def split(config, dataroot):
    index = DatasetChoice.from_config(config).index(dataroot, VERSION, "train")
    return index, ImagePipeline.from_config(config.inputs)


def batch_of(config, dataroot, rows):
    index, pipeline = split(config, dataroot)
    dataset = CocoTrainDataset(index, pipeline, dataroot)
    return collate_queue([dataset[row] for row in rows])


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_detections(name, configs, dataroot):
    """One by one as in a dump, and all sizes in one batch: equal detections, in pixels of each picture."""
    config = configs[name]
    detector = built(config).eval()
    assert isinstance(detector, Detector)
    index, pipeline = split(config, dataroot)
    specs = {spec.name: spec for spec in detector.output_specs(tuple(pipeline.pad_hw))}
    alone = []
    with torch.no_grad():
        for item in streaming_frames(index, pipeline, dataroot):
            outputs, state = detector.encode(frame_inputs(detector, item, torch.device("cpu")))
            assert state is None
            assert {n: tuple(outputs[n].shape[1:]) for n in specs} == {n: s.shape for n, s in specs.items()}
            alone += detector.decode(outputs)
        batch = batch_of(config, dataroot, range(len(index)))["inputs"]
        together = detector.decode(detector.training_outputs(batch))
    for row, (one, other) in enumerate(zip(alone, together, strict=True)):
        height, width = index[row].image_hw
        assert len(one.boxes) > 0
        assert (one.boxes >= -1e-3).all()
        assert (one.boxes <= torch.tensor([width, height, width, height]) + 1e-3).all()
        assert (one.scores.diff() <= 0).all()
        assert set(one.labels.tolist()) <= set(range(len(CLASSES)))
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-3, atol=1e-5)
    assert ("query_logits" in specs) == (name in ("deformable_detr", "dino"))


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_a_batch_with_an_empty_picture(name, configs, dataroot):
    detector = built(configs[name]).train()
    batch = batch_of(configs[name], dataroot, [1, 2])  # the second one has no box
    truths = ground_truth(batch["data_samples"])
    assert [len(truth.boxes) for truth in truths] == [1, 0]
    outputs = detector.training_outputs(batch["inputs"])
    losses = detector.detection_loss(outputs, truths)
    total = sum(losses.values())
    assert total.isfinite()
    assert all(loss.dim() == 0 for loss in losses.values())
    total.backward()
    assert detector.detector.backbone.conv1.weight.grad.abs().sum() > 0
    if detector.has_queries:
        specs = {spec.name: spec.shape for spec in detector.output_specs((96, 96))}
        for query in ("query_logits", "query_boxes"):
            assert tuple(outputs[query].shape) == (2, *specs[query])
            assert outputs[query].requires_grad


def test_losses_are_those_of_mmdet(configs, dataroot):
    """Boxes given in pixels of the pictures are what mmdet is given in pixels of its input."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    detector = built(configs["retinanet"]).eval()
    batch = batch_of(configs["retinanet"], dataroot, [4])
    outputs = detector.training_outputs(batch["inputs"])
    found = detector.detection_loss(outputs, ground_truth(batch["data_samples"]))
    # 60 × 90 fits into (64, 96) 16/15 times as large.
    boxes = torch.tensor([[20.0, 20, 28, 36], [40, 10, 84, 50]]) * (16 / 15)
    sample = DetDataSample(
        metainfo={"img_shape": (64, 96), "pad_shape": (96, 96), "batch_input_shape": (96, 96)}
    )
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([2, 0]))
    wanted = detector.detector.loss(batch["inputs"]["images"][:, 0, 0], [sample])
    for name, value in found.items():
        torch.testing.assert_close(value, sum(wanted[name]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["retinanet", "dino"])
def test_checkpoints_have_the_keys_of_mmdet(name, configs, tmp_path):
    detector = built(configs[name])
    parts = configs[name].model.to_dict()["detector"]
    with DefaultScope.overwrite_default_scope("mmdet"):
        theirs = MMDET_MODELS.build(parts | {"data_preprocessor": None})
    weights = theirs.state_dict()
    assert list(detector.state_dict()) == list(weights)
    path = tmp_path / "zoo.pth"
    torch.save({"meta": {"dataset_meta": {"CLASSES": CLASSES}}, "state_dict": weights}, path)
    load_official(detector, path)
    for key, value in detector.state_dict().items():
        torch.testing.assert_close(value, weights[key])
    theirs.load_state_dict(detector.state_dict())
    missing = dict(weights)
    missing.pop(next(key for key in missing if key.startswith("bbox_head")))
    with pytest.raises(CheckpointMismatch, match=r"missing \(1\):\n    bbox_head"):
        load_official(detector, missing | {"neck.more": torch.zeros(1)})


def test_head_starts_from_the_teacher(configs):
    teacher, student = (built(configs["retinanet"]) for _ in range(2))
    head = {key: value + 1 for key, value in teacher.head_weights().items()}
    assert head
    assert all(key.startswith("bbox_head.") for key in head)
    given = TeacherHead(weights=head, specs=(), image_scale=1.0)
    start = student.start_from("head", given, image_scale=1.0)
    student.load_state_dict(start, strict=False)
    torch.testing.assert_close(student.head_weights(), head)
    assert student.start_from("none", given, image_scale=1.0) == {}
    with pytest.raises(StartUnfit, match="head_and_encoder"):
        student.start_from("head_and_encoder", given, image_scale=1.0)
    with pytest.raises(
        StartUnfit, match=r"bbox_head\.retina_cls\.bias: \(27,\) in the student, None in the teach"
    ):
        student.start_from("head", TeacherHead(weights={}, specs=(), image_scale=1.0), image_scale=1.0)


CASES = {
    "classes": ("class_names=class_names", "class_names=('car', 'person')", "num_classes is 3"),
    "strides": ("pv_strides=(8, 16, 32, 64, 128)", "pv_strides=(8, 16)", "its neck gives maps"),
    "config": ("mmdet::retinanet/", "mmdet::no_such/", "mmdet has no such config"),
    "dataset": ("dataset = dict(type='coco', images_per_group=2)", "", r"Set dataset=dict\(type='coco'\)"),
    "fit": ("fit=(64, 96), ", "", "fit: goes with resize='keep_ratio'"),
    "size": ("pad_hw=(96, 96)", "pad_hw=(100, 100)", "multiples of the finest stride, 8"),
}


@pytest.mark.parametrize("case", CASES)
def test_refusals(case, tmp_path):
    old, new, says = CASES[case]
    path = write_config(tmp_path, "retinanet")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigInvalid, match=says):
        see_a_picture(path)


def test_the_config_of_the_docs(tmp_path):
    text = (ROOT / "docs" / "detectors-2d.md").read_text()
    block = text.split("```python\n")[1].split("```")[0]
    path = tmp_path / "gfl.py"
    path.write_text(block.replace("./configs", f"{ROOT}/configs"))
    config = load_config(path)
    assert config.model.detector.type == "GFL"
    with torch.device("meta"):
        detector = build_detector(config)
    assert detector.output_specs((1344, 1344))[0].shape == (1, 256, 168, 168)


def test_first_weights_that_are_not_there(configs):
    config = copy.deepcopy(configs["retinanet"])
    config.model.detector.backbone.init_cfg = {"type": "Pretrained", "checkpoint": "/nowhere/resnet18.pth"}
    with pytest.raises(ConfigInvalid, match=r"/nowhere/resnet18\.pth.*init_cfg=None"):
        draw_weights(build_detector(config))


def see_a_picture(path):
    config = load_config(path)
    DatasetChoice.from_config(config)
    hw, size = ImagePipeline.from_config(config.inputs).pad_hw, torch.tensor([[96, 96]])
    frame = {"images": torch.zeros(1, 1, 3, *hw), "image_hw": size, "valid_hw": size}
    build_detector(config).encode(frame)


def test_ground_truth_out_of_data_samples(configs, dataroot):
    (truth,) = ground_truth(batch_of(configs["gfl"], dataroot, [3])["data_samples"])
    assert isinstance(truth, GroundTruth)
    assert truth.boxes.tolist() == [[10, 8, 19, 33]]  # neither the crowd nor the kite
    assert truth.labels.tolist() == [1]
