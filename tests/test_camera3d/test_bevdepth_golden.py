"""BEVDepth against the official code: keys, every map from camera numbers to heads, voxel indices, boxes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from bevdepth_cases import frame_inputs, golden, shrunk_detector
from detector_cases import GOLDEN, ROOT, stacked

from camera3d.detectors import build_detector
from camera3d.detectors.bevdepth.decode import candidates
from camera3d.detectors.bevdepth.rig import camera_vector, frustum_geometry

# Another torch and other convolution kernels: measured 2e-6 of the largest value. A wrong epsilon in one
# neck, the smallest mistake tried in the official code, shows at 6e-4.
RELATIVE_TO_LARGEST = 1e-4
BRANCHES = ("reg", "height", "dim", "rot", "vel", "heatmap")


def assert_close(ours: torch.Tensor, key: str) -> None:
    """Compare with a golden array, kept whole or sampled."""
    arrays, ours = golden("tiny"), ours.detach().numpy()
    if key in arrays:
        expected, shape = arrays[key], arrays[key].shape
    else:
        expected, shape = arrays[f"{key}.val"], tuple(arrays[f"{key}.shape"])
        norm = [np.linalg.norm(ours.astype(np.float64)), ours.mean(dtype=np.float64), np.abs(ours).max()]
        tolerance = 1e-4 * norm[2]
        np.testing.assert_allclose(norm, arrays[f"{key}.norm"], rtol=1e-4, atol=tolerance, err_msg=key)
    assert ours.shape == shape, key
    found = ours if key in arrays else ours.ravel()[arrays[f"{key}.idx"]]
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert error < RELATIVE_TO_LARGEST, f"{key}: {error:.2e} of the largest value"


@pytest.mark.parametrize(
    ("config", "keys"),
    [("student/bevdepth_r50.py", "r50"), ("teacher/bevdepth_r50_2key_da.py", "r50-2key-da")],
)
def test_state_dict_is_the_official_one(config, keys):
    with torch.device("meta"):
        detector = build_detector(ROOT / "configs" / config)
    ours = {key: list(value.shape) for key, value in detector.state_dict().items()}
    assert ours == json.loads((GOLDEN / f"keys-bevdepth-{keys}.json").read_text())


def test_two_key_frames_widen_two_weights():
    """As the official two-frame model differs from the single one."""
    with torch.device("meta"):
        detector = build_detector(ROOT / "configs/teacher/bevdepth_r50_2key.py")
    ours = {key: list(value.shape) for key, value in detector.state_dict().items()}
    single = json.loads((GOLDEN / "keys-bevdepth-r50.json").read_text())
    assert ours.keys() == single.keys()
    assert {key: shape for key, shape in ours.items() if shape != single[key]} == {
        "head.trunk.conv1.weight": [160, 160, 7, 7],
        "head.neck.deblocks.0.0.weight": [160, 64, 1, 1],
    }


def run(kind: str, *frames: dict, earlier: dict | None = None):
    """Outputs of a batch of frames, and what the modules inside gave: by name, in the order of calls."""
    detector, seen = shrunk_detector(kind), {}

    def keep(name):
        def hook(module, args, output):
            seen.setdefault(name, []).append(output)

        return hook

    handles = [
        detector.get_submodule(name).register_forward_hook(keep(name))
        for name in (
            *(f"backbone.depth_net.{part}" for part in ("reduce_conv", "depth_se", "context_conv")),
            *(f"backbone.depth_net.depth_conv.{number}" for number in (3, 4)),
            "backbone.depth_net.depth_conv.4.conv_offset",
            *("backbone.img_neck", "backbone.depth_net", "head.shared_conv"),
            *(["backbone.depth_aggregation_net"] if kind == "aggregated" else []),
        )
    ]
    with torch.inference_mode():
        state = None if earlier is None else detector.encode(earlier)[1]
        seen.clear()
        outputs, _ = detector.encode(stacked(*frames), state)
    for handle in handles:
        handle.remove()
    return outputs, seen


@pytest.fixture(scope="module")
def single():
    return run("one", frame_inputs("f0"), frame_inputs("f1"))


@pytest.fixture(scope="module")
def two_frames():
    return run("two", frame_inputs("t"), earlier=frame_inputs("t.1"))


def check_heads(outputs, prefix: str, row: int) -> None:
    for task in range(6):
        for branch in BRANCHES:
            assert_close(outputs[f"task{task}_{branch}"][row], f"{prefix}.task{task}.{branch}")


def check_depth_net(seen, call: int, cameras: slice, prefix: str) -> None:
    net = "backbone.depth_net"
    names = {
        f"{net}.reduce_conv": "depth_reduce",
        f"{net}.depth_se": "depth_gated",
        f"{net}.depth_conv.3": "depth_aspp",
        f"{net}.depth_conv.4.conv_offset": "depth_offset",
        f"{net}.depth_conv.4": "depth_dcn",
        f"{net}.context_conv": "context",
    }
    for module, key in names.items():
        assert_close(seen[module][call][cameras], f"{prefix}.{key}")
    assert_close(seen[net][call][0][cameras], f"{prefix}.depth")


def decoded_sets(boxes, scores, labels) -> list[tuple]:
    """Rows in an order that does not depend on scores that are nearly equal."""
    rows = np.concatenate((labels[:, None], boxes, scores[:, None]), axis=1)
    return rows[np.lexsort(np.round(rows[:, [2, 1, 0]], 2).T)]


def check_decoded(outputs, prefix: str, row: int, kind: str) -> None:
    arrays, detector = golden("tiny"), shrunk_detector(kind)
    found = detector.decode_ego(outputs)[row]
    ours = decoded_sets(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy())
    expected = decoded_sets(*(arrays[f"{prefix}.det_{name}"] for name in ("boxes", "scores", "labels")))
    assert ours.shape == expected.shape
    # Centres lie on the scale of tens of metres, sizes are exponentials of large logits.
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


class TestSingleFrame:
    @pytest.mark.parametrize(("name", "row"), [("f0", 0), ("f1", 1)])
    def test_maps(self, single, name, row):
        outputs, seen = single
        cameras = slice(6 * row, 6 * row + 6)
        assert_close(outputs["pv_feats_0"][row], f"{name}.img_feat")
        check_depth_net(seen, 0, cameras, name)
        assert_close(outputs["depth_distribution"][row], f"{name}.depth")
        assert_close(outputs["bev_lifted"][row], f"{name}.bev")
        assert_close(outputs["bev_feats"][row], f"{name}.bev_neck")
        assert_close(seen["head.shared_conv"][0][row], f"{name}.bev_shared")
        check_heads(outputs, name, row)

    @pytest.mark.parametrize("name", ["f0", "f1"])
    def test_camera_numbers_and_geometry(self, name):
        detector, frame = shrunk_detector(), frame_inputs(name)
        rig = detector._rig(frame)
        assert_close(camera_vector(rig)[0], f"{name}.camera_vector")
        points = frustum_geometry(detector.backbone.frustum, rig)
        assert_close(points[0], f"{name}.geometry")
        index = detector.backbone.cells(rig)[0].numpy()
        np.testing.assert_array_equal(
            index.ravel()[golden("tiny")[f"{name}.voxel.idx"]], golden("tiny")[f"{name}.voxel.val"]
        )

    @pytest.mark.parametrize(("name", "row"), [("f0", 0), ("f1", 1)])
    def test_boxes(self, single, name, row):
        outputs, _ = single
        check_decoded(outputs, name, row, "one")
        arrays, detector = golden("tiny"), shrunk_detector()
        for task in range(6):
            maps = detector._task_maps(outputs, task)
            found = candidates(maps, detector.grid, detector.decode_rule)[row]
            ours = decoded_sets(found.boxes.numpy(), found.scores.numpy(), found.labels.numpy())
            keys = (f"{name}.pre{task}.{part}" for part in ("boxes", "scores", "labels"))
            np.testing.assert_allclose(
                ours, decoded_sets(*(arrays[key] for key in keys)), rtol=1e-3, atol=1e-3
            )


class TestTwoKeyFrames:
    def test_maps(self, two_frames):
        outputs, seen = two_frames
        for call in (0, 1):
            check_depth_net(seen, call, slice(None), f"t.{call}")
        assert_close(outputs["pv_feats_0"][0], "t.0.img_feat")
        assert_close(outputs["bev_lifted"][0], "t.bev")
        assert_close(outputs["bev_feats"][0], "t.bev_neck")
        check_heads(outputs, "t", 0)
        check_decoded(outputs, "t", 0, "two")

    def test_earlier_geometry(self):
        detector = shrunk_detector("two")
        key, before = frame_inputs("t"), frame_inputs("t.1")
        seen = detector._seen(before, before["images"])
        rig = detector._rig(key, seen)
        assert_close(frustum_geometry(detector.backbone.frustum, rig)[0], "t.1.geometry")
        index = detector.backbone.cells(rig)[0].numpy()
        np.testing.assert_array_equal(
            index.ravel()[golden("tiny")["t.1.voxel.idx"]], golden("tiny")["t.1.voxel.val"]
        )
        # The key frame's numbers, also where the released code tells them of the earlier frame.
        for number in (0, 1):
            assert_close(camera_vector(detector._rig(key))[0], f"t.{number}.camera_vector")


def test_depth_aggregation():
    outputs, seen = run("aggregated", frame_inputs("f0"))
    lifted = torch.cat(seen["backbone.depth_aggregation_net"])
    assert_close(lifted, "da.lifted")
    assert_close(outputs["bev_lifted"][0], "da.bev")
    assert_close(outputs["bev_feats"][0], "da.bev_neck")
    check_heads(outputs, "da", 0)
    check_decoded(outputs, "da", 0, "aggregated")


def test_truncation_matters():
    """What the released weights need shows: rounding down changes the pooled map by far more than noise."""
    detector, frame = shrunk_detector(), frame_inputs("f0")
    points = frustum_geometry(detector.backbone.frustum, detector._rig(frame))
    low = detector.backbone.voxel_coord - detector.backbone.voxel_size / 2
    floored = ((points - low) / detector.backbone.voxel_size).floor().int()
    kept = detector.backbone.cells(detector._rig(frame))
    limits = torch.tensor(detector.backbone.grid_xyz)
    counts = [(((index >= 0) & (index < limits)).all(-1)).sum() for index in (floored, kept)]
    assert counts[0] < 0.95 * counts[1]
