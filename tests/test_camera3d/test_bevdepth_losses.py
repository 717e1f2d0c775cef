"""BEVDepth's targets, losses and gradients against the official code, and the switches of its training."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bevdepth_cases import frame_inputs, golden, shrunk_config, shrunk_detector
from detector_cases import stacked
from torch import Tensor

from camera3d.data.lidar_depth import depth_maps
from camera3d.detectors import GroundTruth, build_detector
from camera3d.detectors.bevdepth.criterion import BEVDepthCriterion
from camera3d.detectors.bevdepth.decode import BevGrid
from camera3d.detectors.bevdepth.targets import depth_bins, task_targets
from camera3d.errors import ConfigInvalid

OFFICIAL = SimpleNamespace(grid=BevGrid(cell_m=(0.8, 0.8), low_m=(-51.2, -51.2)), map_hw=(128, 128))
TINY = SimpleNamespace(grid=BevGrid(cell_m=(3.2, 3.2), low_m=(-51.2, -51.2)), map_hw=(32, 32))
CLASSES = (1, 2, 2, 1, 2, 2)
BINS_M = (2.0, 58.0, 0.5)


def truth(name: str = "gt_boxes") -> GroundTruth:
    arrays = golden("losses")
    return GroundTruth(torch.from_numpy(arrays[name]), torch.from_numpy(arrays["gt_labels"]))


BATCH = (truth(), truth("gt_boxes_bda1"))


def all_targets(case: SimpleNamespace, truths=BATCH) -> list[list]:
    """By task, one a sample."""
    starts = np.cumsum((0, *CLASSES))
    return [
        [task_targets(one, range(first, first + count), case.grid, case.map_hw) for one in truths]
        for first, count in zip(starts, CLASSES, strict=False)
    ]


def sparse(arrays: dict, key: str) -> np.ndarray:
    """What is kept as its non-zero entries."""
    dense = np.zeros(int(np.prod(arrays[f"{key}.shape"])), dtype=np.float32)
    dense[arrays[f"{key}.idx"]] = arrays[f"{key}.val"]
    return dense.reshape(arrays[f"{key}.shape"])


@pytest.mark.parametrize(("prefix", "case"), [("target", OFFICIAL), ("tiny.target", TINY)], ids=str)
def test_targets(prefix, case):
    arrays = golden("losses")
    for task, samples in enumerate(all_targets(case)):
        heat = np.stack([sample.heatmap.numpy() for sample in samples])
        np.testing.assert_allclose(heat, sparse(arrays, f"{prefix}.heat{task}"), atol=1e-6)
        assert (heat == 1).sum() == arrays[f"{prefix}.num_pos{task}"]
        assert sum(len(sample.cells) for sample in samples) == arrays[f"{prefix}.num_box{task}"]
        for row, sample in enumerate(samples):
            there = arrays[f"{prefix}.mask{task}"][row].astype(bool)
            np.testing.assert_array_equal(sample.cells.numpy(), arrays[f"{prefix}.ind{task}"][row][there])
            expected = arrays[f"{prefix}.box{task}"][row][there]
            np.testing.assert_allclose(sample.codes.numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(("prefix", "velocity_weight"), [("unit", 0.5), ("unit_ones", 1.0)])
def test_losses_of_random_maps(prefix, velocity_weight):
    random, arrays = np.random.RandomState(7), golden("losses")
    criterion, total = BEVDepthCriterion(velocity_weight=velocity_weight), 0.0
    for task, (classes, targets) in enumerate(zip(CLASSES, all_targets(OFFICIAL), strict=True)):
        maps = {}
        for branch, numbers in {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}.items():
            maps[branch] = torch.from_numpy(random.standard_normal((2, numbers, 128, 128)).astype(np.float32))
        heat = random.standard_normal((2, classes, 128, 128)).astype(np.float32)
        maps["heatmap"] = torch.from_numpy(heat) - 2
        before = maps["heatmap"].clone()
        losses = criterion.task_losses(maps, targets)
        assert torch.equal(maps["heatmap"], before)
        assert losses["loss_heatmap"].item() == pytest.approx(arrays[f"{prefix}.heatmap{task}"], rel=1e-5)
        assert losses["loss_bbox"].item() == pytest.approx(arrays[f"{prefix}.bbox{task}"], rel=1e-5)
        total += sum(losses.values()).item()
    assert total == pytest.approx(arrays[f"{prefix}.total"], rel=1e-5)


class TestDepth:
    @pytest.mark.parametrize("name", ["depth_eval", "depth_aug"])
    def test_of_a_sweep(self, name):
        arrays = golden("losses")
        found = depth_maps(
            arrays["lidar.points"][:, :3],
            lidar2global=arrays["lidar.ego2global"] @ arrays["lidar.lidar2ego"],
            cam2global=arrays["lidar.cam_ego2global"] @ arrays["lidar.cam2ego"],
            intrinsics=arrays["lidar.intrin"],
            image_transform=arrays[f"{name}.ida"].astype(np.float64),
            image_hw=(900, 1600),
            input_hw=(256, 704),
        )
        expected = sparse(arrays, f"{name}.map")
        # Official points are rounded to float32 on their way: one in a thousand falls into the next pixel.
        same = np.isclose(found, expected, rtol=1e-4, atol=1e-4)
        assert (~same & ((found > 0) | (expected > 0))).sum() < 2e-3 * (expected > 0).sum()
        bins = depth_bins(torch.from_numpy(expected)[None], 16, BINS_M)[0]
        np.testing.assert_array_equal(bins, arrays[f"{name}.bin"])
        own = depth_bins(torch.from_numpy(found)[None], 16, BINS_M)[0].numpy()
        assert (own != arrays[f"{name}.bin"]).mean() < 1e-3

        random = np.random.RandomState(8).standard_normal((6, 112, 16, 44)).astype(np.float32)
        probability = torch.from_numpy(2 * random).softmax(1)[None]
        loss = BEVDepthCriterion().depth_loss(probability, bins[None])
        assert loss.item() == pytest.approx(float(arrays[f"{name}.loss"]), rel=1e-5)

    def test_bins_of_the_shrunk_model(self):
        arrays = golden("losses")
        for frame in ("f0", "f1"):
            depth = torch.from_numpy(sparse(arrays, f"tiny.{frame}.depth.map"))
            found = depth_bins(depth[None], 16, (2.0, 58.0, 2.0))[0]
            np.testing.assert_array_equal(found, arrays[f"tiny.{frame}.depth.bin"])

    def test_borders_of_the_bins(self):
        depth = torch.tensor([0.0, 1.9, 2.0, 2.49, 2.5, 57.9, 58.0, 900.0]).view(1, 8, 1, 1)
        assert depth_bins(depth, 1, BINS_M).flatten().tolist() == [-1, -1, 0, 0, 1, 111, -1, -1]

    def test_nothing_hit(self):
        probability = torch.full((1, 1, 4, 2, 2), 0.25, requires_grad=True)
        loss = BEVDepthCriterion().depth_loss(probability, torch.full((1, 1, 2, 2), -1))
        loss.backward()
        assert loss.item() == 0
        assert not probability.grad.any()


def depth_of(frame: str) -> Tensor:
    return torch.from_numpy(sparse(golden("losses"), f"tiny.{frame}.depth.map"))[None, None]


@pytest.fixture(scope="module", params=["tiny", "tiny2key"])
def trained(request):
    """Losses and gradients by key of a step of the shrunk model."""
    if request.param == "tiny":
        detector, truths = shrunk_detector(), BATCH
        frames = stacked(frame_inputs("f0"), frame_inputs("f1"))
        batch = {name: values[:, None] for name, values in frames.items()}
        batch["lidar_depth"] = torch.cat((depth_of("f0"), depth_of("f1")))
    else:
        detector, truths = shrunk_detector("two"), (truth("gt_boxes_bda2"),)
        key, before = frame_inputs("t"), frame_inputs("t.1")
        batch = {name: torch.stack((before[name], key[name]), dim=1) for name in key}
        batch["lidar_depth"] = depth_of("f1")
    losses = detector.detection_loss(detector.training_outputs(batch), truths)
    keys = [key for key in golden("losses") if key.startswith(f"{request.param}.grad.")]
    names = list(dict.fromkeys(key.split(".grad.")[1] for key in keys))
    names = list(dict.fromkeys(name.removesuffix(end) for name in names for end in ends(name)))
    gradients = torch.autograd.grad(sum(losses.values()), [detector.get_parameter(name) for name in names])
    return request.param, losses, dict(zip(names, gradients, strict=True))


def ends(name: str) -> tuple[str, ...]:
    """The ending of a sampled array's entry."""
    last = "." + name.rsplit(".", 1)[-1]
    return (last,) if last in (".idx", ".val", ".shape", ".norm") else ("",)


def test_losses_of_the_shrunk_model(trained):
    prefix, losses, _ = trained
    arrays = golden("losses")
    for task in range(6):
        for ours, theirs in (("heatmap", "heatmap"), ("bbox", "bbox")):
            expected = float(arrays[f"{prefix}.loss.{theirs}{task}"])
            assert losses[f"task{task}.loss_{ours}"].item() == pytest.approx(expected, rel=1e-4), task
    detection = sum(value.item() for name, value in losses.items() if name != "loss_depth")
    assert detection == pytest.approx(float(arrays[f"{prefix}.loss.detection"]), rel=1e-4)
    assert losses["loss_depth"].item() == pytest.approx(float(arrays[f"{prefix}.loss.depth"]), rel=1e-4)


def test_gradients_of_the_shrunk_model(trained):
    """Near zero ReLUs may flip: measured 1e-4 of the largest value."""
    prefix, _, gradients = trained
    arrays = golden("losses")
    assert len(gradients) > 10
    for name, gradient in gradients.items():
        key, ours = f"{prefix}.grad.{name}", gradient.numpy()
        if key in arrays:
            expected = arrays[key]
        else:
            assert ours.shape == tuple(arrays[f"{key}.shape"])
            expected, ours = arrays[f"{key}.val"], ours.ravel()[arrays[f"{key}.idx"]]
        error, largest = np.abs(ours - expected).max(), np.abs(expected).max()
        # A task without boxes gives its box branches nothing.
        assert error <= 1e-2 * largest, f"{name}: {error:.1e} of {largest:.1e}"


class TestSwitches:
    """What only harms new training is off by default, and can be had."""

    def test_heatmap_bias(self):
        biases = [head.heatmap[-1].bias for head in build_detector(shrunk_config()).head.task_heads]
        assert all((bias == torch.tensor(-2.19)).all() for bias in biases)
        biases = build_detector(shrunk_config(heatmap_bias=None)).head.task_heads[0].heatmap[-1].bias
        assert biases.abs().max() < 1

    @pytest.mark.parametrize(("choice", "finite"), [({}, True), ({"unknown_velocity": "keep"}, False)])
    def test_unknown_velocity(self, choice, finite):
        box = torch.tensor([[1.0, 1.0, 0.0, 4.0, 2.0, 1.5, 0.3, float("nan"), float("nan")]])
        target = task_targets(GroundTruth(box, torch.tensor([0])), range(1), TINY.grid, TINY.map_hw)
        maps = {
            branch: torch.zeros(1, numbers, 32, 32, requires_grad=True)
            for branch, numbers in {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": 1}.items()
        }
        loss = BEVDepthCriterion(**choice).task_losses(maps, [target])["loss_bbox"]
        loss.backward()
        assert bool(loss.isfinite()) == finite
        if finite:
            assert not maps["vel"].grad.any()
            assert maps["dim"].grad.any()

    def test_velocity_weight(self):
        """Two key frames are there for the velocity: it weighs as much as the rest, unless released."""
        assert BEVDepthCriterion().code_weights == (1.0,) * 10
        assert BEVDepthCriterion(velocity_weight=0.5).code_weights[-2:] == (0.5, 0.5)
        assert shrunk_detector("two").criterion.code_weights[-1] == 1.0

    def test_depth_needs_the_lidar_or_a_word(self):
        outputs = {"lidar2ego": torch.eye(4)[None]}
        detector = shrunk_detector()
        maps = {
            f"task{task}_{branch}": torch.zeros(1, numbers, 32, 32)
            for task, classes in enumerate(CLASSES)
            for branch, numbers in {
                **{"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2},
                "heatmap": classes,
            }.items()
        }
        assert detector.training_inputs == ("bev_transform", "lidar_depth")
        with pytest.raises(ConfigInvalid, match=r"lidar_depth=True.*depth_weight=0"):
            detector.detection_loss({**maps, **outputs}, [truth()])
        without = build_detector(shrunk_config(criterion={"depth_weight": 0.0}))
        assert without.training_inputs == ("bev_transform",)
        assert "loss_depth" not in without.detection_loss({**maps, **outputs}, [truth()])


def test_no_boxes_leave_every_branch_in_the_step():
    none = GroundTruth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long))
    target = task_targets(none, range(2), TINY.grid, TINY.map_hw)
    maps = {
        branch: torch.zeros(1, numbers, 32, 32, requires_grad=True)
        for branch, numbers in {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2, "heatmap": 2}.items()
    }
    losses = BEVDepthCriterion().task_losses(maps, [target])
    assert losses["loss_bbox"].item() == 0
    sum(losses.values()).backward()
    assert all(values.grad is not None for values in maps.values())
