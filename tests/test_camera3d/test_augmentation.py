"""Augmented samples: the official pictures and matrices, draws that repeat, and everything moved alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from bevdepth_cases import CUT, golden

from camera3d.boxes import decode_official, encode_official, move_boxes, move_encoded
from camera3d.data import (
    ImagePipeline,
    NuScenesQueueDataset,
    NuScenesSegmentDataset,
    SegmentFrame,
    build_index,
)
from camera3d.data.augmentation import (
    Augmentation,
    BevAugmentation,
    ImageAugmentation,
    ImageDraw,
    augmentation_faults,
    bev_matrix,
)
from camera3d.data.plane_move import PlaneMove
from camera3d.detectors.samples import ground_truth
from camera3d.errors import ConfigInvalid

PIPELINE = ImagePipeline(**CUT)
PADDED = ImagePipeline(**{**CUT, "resize": "opencv", "pad_hw": (48, 80)})
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
BOTH = Augmentation(
    image=ImageAugmentation(zoom=(0.8, 1.3), rotate_deg=5.4),
    bev=BevAugmentation(rotate_deg=22.5, scale=(0.95, 1.05)),
)
EGO_INPUTS = ("image_transform", "lidar2ego", "bev_transform")


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(splits={"tiny_train": ["scene-0061", "scene-0553"]})


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, "v1.0-mini", "tiny_train")


@pytest.fixture
def queues(index, dataroot):
    def make(kind=NuScenesQueueDataset, pipeline=PIPELINE, **options):
        if kind is NuScenesQueueDataset:
            options = {"queue_length": 2, "drop_history_frame": False, "filter_empty_gt": False} | options
        options = {"point_cloud_range": RANGE, "distort": False, "augmentation": BOTH} | options
        return kind(index, pipeline, dataroot, **options)

    return make


class TestOfficialNumbers:
    @pytest.mark.parametrize("setting", range(6))
    def test_pictures_and_matrices(self, setting):
        arrays = golden("inputs")
        scale, width, height, left, top, _, _, mirrored, degrees = arrays[f"{setting}.params"]
        move = PlaneMove(
            scale=scale,
            scaled_hw=(int(height), int(width)),
            input_hw=(32, 80),
            left=int(left),
            top=int(top),
            mirrored=bool(mirrored),
            degrees=degrees,
        )
        found = move.of_bytes(arrays["raw_rgb_u8"])
        np.testing.assert_array_equal(found, arrays[f"{setting}.image_rgb_u8"])
        np.testing.assert_allclose(move.matrix(), arrays[f"{setting}.ida"], rtol=1e-6, atol=1e-5)

    @pytest.mark.parametrize("setting", range(5))
    def test_boxes(self, setting):
        arrays = golden("inputs")
        degrees, scale, mirror_x, mirror_y = arrays[f"bda{setting}.params"]
        matrix = bev_matrix(degrees, scale, mirror_x=bool(mirror_x), mirror_y=bool(mirror_y))
        np.testing.assert_allclose(matrix[:3, :3], arrays[f"bda{setting}.matrix"], rtol=1e-6, atol=1e-7)
        boxes, wanted = (torch.from_numpy(arrays[name]) for name in ("boxes", f"bda{setting}.boxes"))
        moved = move_boxes(boxes, torch.from_numpy(matrix))
        others = [0, 1, 2, 3, 4, 5, 7, 8]
        torch.testing.assert_close(moved[:, others], wanted[:, others], rtol=1e-5, atol=1e-5)
        turned = torch.stack((moved[:, 6], wanted[:, 6]))
        torch.testing.assert_close(turned.sin()[0], turned.sin()[1], rtol=0, atol=1e-5)
        torch.testing.assert_close(turned.cos()[0], turned.cos()[1], rtol=0, atol=1e-5)
        encoded = move_encoded(encode_official(boxes.double()), torch.from_numpy(matrix))
        exact = move_boxes(boxes.double(), torch.from_numpy(matrix))
        torch.testing.assert_close(encoded, encode_official(exact))

    def test_encoded_predictions_keep_how_sure_they_are_of_the_heading(self):
        encoded = encode_official(torch.tensor([[1.0, 2, 0, 4, 2, 1.5, 0.3, 1, -1]]))
        encoded[:, 6:8] *= 0.2
        moved = move_encoded(encoded, torch.from_numpy(bev_matrix(90, 1.1, mirror_x=True, mirror_y=False)))
        assert moved[0, 6:8].norm().item() == pytest.approx(0.2)
        assert decode_official(moved)[0, 3:6].tolist() == pytest.approx([4.4, 2.2, 1.65])


@pytest.mark.parametrize("pipeline", [PIPELINE, PADDED], ids=["pillow", "opencv"])
def test_a_point_of_the_picture_is_where_the_matrix_says(pipeline):
    picture = np.zeros((90, 160, 3), dtype=np.uint8)
    picture[60:68, 70:78] = 255
    blank, _ = pipeline.prepare([picture * 0], np.eye(4)[None])
    draws = [ImageDraw(zoom=1.2, left=0.4, mirrored=True, degrees=5.0)]
    found, _ = pipeline.prepare([picture], np.eye(4)[None], draws=draws)
    bright = found[0, 0] > blank[0, 0].max() + 1
    rows, columns = np.nonzero(bright)
    centre = pipeline.image_transform((90, 160), draws)[0] @ [74.0, 64.0, 1.0, 1.0]
    assert columns.mean() + 0.5 == pytest.approx(centre[0], abs=0.6)
    assert rows.mean() + 0.5 == pytest.approx(centre[1], abs=0.6)


def test_no_zoom_and_no_turn_is_the_picture_as_it_is():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    draws = [ImageDraw(zoom=1.0, left=0.0, mirrored=False, degrees=0.0)]
    for pipeline in (PIPELINE, PADDED):
        plain, matrix = pipeline.prepare([picture], np.eye(4)[None])
        found, same = pipeline.prepare([picture], np.eye(4)[None], draws=draws)
        np.testing.assert_array_equal(same, matrix[0][None])
        # Where nothing is, an input that was made smaller keeps it.
        np.testing.assert_allclose(found[..., 1:-4, 1:-1], plain[..., 1:-4, 1:-1], atol=1e-4)


@pytest.mark.parametrize("reads_ego", [True, False])
def test_boxes_and_matrices_of_an_item_move_together(queues, reads_ego):
    """A box's centre is at the same pixel of the camera's picture as ever."""
    extra = EGO_INPUTS if reads_ego else ()
    still = queues(augmentation=None, extra_inputs=extra)
    moved = queues(extra_inputs=extra, point_cloud_range=(-200, -200, -9, 200, 200, 9))
    all_still = queues(augmentation=None, point_cloud_range=(-200, -200, -9, 200, 200, 9))
    for row in (1, 3):
        item, before, whole = moved[row], still[row], all_still[row]
        moves = item["moves"]
        (truth,), (truth_before,) = (
            ground_truth([item["data_samples"]]),
            ground_truth([whole["data_samples"]]),
        )
        expected = move_boxes(truth_before.boxes, moves.lidar)
        torch.testing.assert_close(truth.boxes, expected, atol=1e-4, rtol=1e-5)
        points = torch.cat((truth.boxes[:, :3], torch.ones(len(truth.boxes), 1)), dim=1).double()
        points_before = torch.cat((truth_before.boxes[:, :3], torch.ones(len(points), 1)), dim=1).double()
        seen_by = 0
        for camera in range(6):
            pixel = points @ item["lidar2img"][1, camera].double().T
            pixel_before = points_before @ before["lidar2img"][1, camera].double().T
            seen = pixel_before[:, 2] > 1
            seen_by += seen.sum()
            pixel, pixel_before = (p[seen, :2] / p[seen, 2:3] for p in (pixel, pixel_before))
            flat = torch.cat((pixel_before, torch.zeros(len(pixel), 1), torch.ones(len(pixel), 1)), dim=1)
            expected = (flat @ moves.images[camera].T)[:, :2]
            torch.testing.assert_close(pixel, expected, atol=0.05, rtol=1e-3)
        assert seen_by
        if reads_ego:
            assert torch.equal(moves.lidar, torch.eye(4).double())
            torch.testing.assert_close(item["lidar2ego"], moves.bev @ before["lidar2ego"])
            assert torch.equal(item["bev_transform"][0], moves.bev)
            torch.testing.assert_close(
                item["image_transform"][1], moves.images @ before["image_transform"][1]
            )
        else:
            assert torch.equal(moves.lidar, moves.bev)
        assert not torch.equal(moves.bev, torch.eye(4).double())


def test_ground_truth_is_filtered_where_it_was_moved_to(queues):
    item = queues(point_cloud_range=(-20, -20, -9, 20, 20, 9))[2]
    (truth,) = ground_truth([item["data_samples"]])
    assert (truth.boxes[:, :2].abs() < 20).all()


def test_draws_repeat_for_seed_epoch_and_row(queues):
    first, again = queues(seed=3), queues(seed=3)
    for left, right in zip(first[2]["moves"], again[2]["moves"], strict=True):
        assert torch.equal(left, right)
    assert torch.equal(first[2]["images"], again[2]["images"])
    again.set_epoch(1)
    assert not torch.equal(first[2]["moves"].images, again[2]["moves"].images)
    assert not torch.equal(first[2]["moves"].bev, queues(seed=4)[2]["moves"].bev)
    assert not torch.equal(first[2]["moves"].bev, first[3]["moves"].bev)
    assert not torch.equal(first[2]["moves"].images[0], first[2]["moves"].images[1])


def test_draws_of_queues_and_colours_are_what_they_were(queues):
    plain, colours = (
        queues(distort=True, augmentation=None),
        queues(distort=True, augmentation=Augmentation()),
    )
    assert torch.equal(plain[2]["images"], colours[2]["images"])


def test_frames_of_a_history_are_moved_alike(queues):
    stream = queues(NuScenesSegmentDataset, extra_inputs=EGO_INPUTS)
    first, second, other = (stream[SegmentFrame(row, start)] for row, start in ((0, 0), (1, 0), (1, 1)))
    assert torch.equal(first["bev_transform"], second["bev_transform"])
    assert torch.equal(first["image_transform"], second["image_transform"])
    assert not torch.equal(second["bev_transform"], other["bev_transform"])


def test_nothing_is_moved_without_augmentation(queues):
    item = queues(augmentation=None, extra_inputs=EGO_INPUTS)[2]
    assert "moves" not in item
    assert torch.equal(item["bev_transform"], torch.eye(4).double().expand(2, 4, 4))


class TestRanges:
    def test_draws_keep_to_them(self):
        image = ImageAugmentation(zoom=(0.8, 1.2), rotate_deg=5.0)
        draws = [draw for seed in range(40) for draw in image.draw(np.random.default_rng(seed), 3)]
        assert {draw.mirrored for draw in draws} == {True, False}
        assert min(d.zoom for d in draws) < 0.85 < 1.15 < max(d.zoom for d in draws)
        assert all(0.8 <= draw.zoom <= 1.2 and abs(draw.degrees) <= 5 for draw in draws)
        bev = BevAugmentation(rotate_deg=10, scale=(0.9, 1.1), mirror_x=False)
        matrices = [bev.draw(np.random.default_rng(seed)) for seed in range(40)]
        assert {np.linalg.det(m) > 0 for m in matrices} == {True, False}
        assert all(m[0, 0] > math.cos(math.radians(10)) * 0.9 - 1e-9 for m in matrices)

    def test_one_that_is_switched_off_leaves_the_others_draws(self):
        on, off = (
            BevAugmentation(rotate_deg=10, mirror_x=mirror).draw(np.random.default_rng(5))
            for mirror in (True, False)
        )
        np.testing.assert_allclose(np.abs(on), np.abs(off))

    def test_of_a_config(self):
        given = {"image": {"zoom": [0.9, 1.1]}, "bev": None}
        found = Augmentation.from_config({"augmentation": given})
        assert found == Augmentation(image=ImageAugmentation(zoom=(0.9, 1.1)))
        assert Augmentation.from_config({}) is None
        assert Augmentation.from_config({"augmentation": {"image": None}}) is None

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            ({"picture": {}}, "augmentation.picture: unknown"),
            (
                {"image": {"zoom": 0.9}},
                "augmentation.image.zoom: expected a lowest and a highest factor > 0, got 0.9",
            ),
            ({"image": {"zoom": (1.2, 0.9)}}, "augmentation.image.zoom: expected a lowest"),
            ({"bev": {"scale": (0, 1)}}, "augmentation.bev.scale: expected a lowest"),
            ({"bev": {"rotate_deg": 200}}, "augmentation.bev.rotate_deg: expected 0 to 180, got 200"),
            ({"bev": {"mirror_x": 0.5}}, "augmentation.bev.mirror_x: expected True or False"),
            ({"bev": 3}, "augmentation.bev: expected a dict"),
            (3, "augmentation: expected a dict"),
        ],
    )
    def test_what_cannot_be(self, given, says):
        (fault,) = augmentation_faults("augmentation", given)
        assert fault.startswith(says)
        with pytest.raises(ConfigInvalid, match="the augmentation of the config cannot be"):
            Augmentation.from_config({"augmentation": given})
