"""What detectors read besides images: the sensors' matrices, pictures as BEVDepth has them, LiDAR depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bevdepth_cases import CUT, golden

from camera3d.data import ImagePipeline, NuScenesQueueDataset, StreamingFrames, build_index, collate_queue
from camera3d.data.rig import RIG_NAMES, frame_rig, mean_pose, pose_matrix
from camera3d.errors import ConfigInvalid, ImagesBroken
from camera3d.geometry import invert_rigid

PIPELINE = ImagePipeline(**CUT)
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(splits={"tiny_train": ["scene-0061", "scene-0553"]})


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, "v1.0-mini", "tiny_train")


class TestPictures:
    def test_are_the_official_ones_to_the_last_bit(self):
        arrays = golden("inputs")
        found, _ = PIPELINE.prepare([arrays["raw_rgb_u8"][..., ::-1].copy()], np.eye(4)[None])
        np.testing.assert_array_equal(found[0], arrays["0.network_input"])
        np.testing.assert_array_equal(PIPELINE.image_transform((90, 160)), arrays["0.ida"])

    def test_of_nuscenes_keep_the_lowest_rows(self):
        pipeline = ImagePipeline(**{**CUT, "scale": 0.44, "pad_hw": (256, 704)})
        scale, width, height, left, top, right, bottom, *_ = golden("inputs")["nuscenes_eval.params"]
        assert pipeline.size_after_scaling((900, 1600)) == (height, width)
        transform = pipeline.image_transform((900, 1600))
        assert (transform[0, 0], *-transform[:2, 3]) == (pytest.approx(scale), left, top)
        assert (right - left, bottom - top) == (704, 256)

    def test_points_fall_where_the_pixels_went(self, index):
        frame = index[0]
        moved = PIPELINE.scale_lidar2img(frame.lidar2img, frame.image_hw)
        points = np.array([[3.0, 20.0, 0.5, 1.0], [-8.0, 30.0, -1.0, 1.0]])
        full, cut = (points @ matrices[0].T for matrices in (frame.lidar2img, moved))
        pixels = full[:, :2] / full[:, 2:3] * 0.5 - [0, 13]
        np.testing.assert_allclose(cut[:, :2] / cut[:, 2:3], pixels)
        np.testing.assert_allclose(cut[:, 2], full[:, 2])

    def test_facts_name_what_is_not_the_default(self):
        assert PIPELINE.to_dict()["resize"] == "pillow_keep_bottom"
        plain = {name: value for name, value in CUT.items() if name != "resize"}
        assert "resize" not in ImagePipeline.from_config(plain).to_dict()
        assert ImagePipeline.from_config(PIPELINE.to_dict()).to_dict() == PIPELINE.to_dict()

    def test_refusals(self):
        with pytest.raises(ConfigInvalid, match="resize: expected one of opencv, pillow_keep_bottom"):
            ImagePipeline(**{**CUT, "resize": "pil"})
        with pytest.raises(ConfigInvalid, match="45×80 and does not fill 32×96"):
            ImagePipeline(**{**CUT, "pad_hw": (32, 96)}).require_fit((90, 160))


class TestRig:
    def test_the_chain_gives_the_projection(self, index):
        """LiDAR to the ego frame, global, the camera's ego, the camera, the picture: that is lidar2img."""
        frame = index[1]
        rig = frame_rig(frame, PIPELINE)
        to_camera = invert_rigid(rig["cam_ego2global"] @ rig["cam2ego"])
        chain = rig["intrinsics"] @ to_camera @ rig["ego2global"] @ rig["lidar2ego"]
        np.testing.assert_allclose(chain, frame.lidar2img, atol=1e-6)

    def test_the_ego_frame_is_the_mean_one(self, index):
        frame = index[1]
        ego = frame_rig(frame, PIPELINE)["ego2global"]
        poses = pose_matrix(frame.camera_ego_to_global)
        np.testing.assert_allclose(ego[:3, 3], poses[:, :3, 3].mean(axis=0))
        assert not np.allclose(ego, poses[0])

    def test_both_signs_of_a_quaternion_are_one_rotation(self, index):
        poses = np.array(index[1].camera_ego_to_global)
        expected = pose_matrix(mean_pose(poses))
        poses[2, 3:] *= -1
        np.testing.assert_allclose(pose_matrix(mean_pose(poses)), expected)

    def test_frames_and_queues_hold_the_same(self, index, dataroot):
        frame = StreamingFrames(index, PIPELINE, dataroot)[2]
        queues = NuScenesQueueDataset(
            *(index, PIPELINE, dataroot),
            point_cloud_range=RANGE,
            queue_length=2,
            drop_history_frame=False,
            extra_inputs=RIG_NAMES,
        )
        batch = collate_queue([queues[2], queues[2]])["inputs"]
        for name in RIG_NAMES:
            assert frame[name].dtype == batch[name].dtype == torch.float64
            assert batch[name].shape == (2, 2, *frame[name].shape)
            assert torch.equal(batch[name][1, -1], frame[name]), name
        assert "lidar_depth" not in batch

    def test_an_unknown_input_is_refused(self, index, dataroot):
        with pytest.raises(ConfigInvalid, match=r"the detector reads radar; a frame has images, .*lidar2ego"):
            NuScenesQueueDataset(
                *(index, PIPELINE, dataroot), point_cloud_range=RANGE, extra_inputs=("images", "radar")[1:]
            )


class TestLidarDepth:
    @pytest.fixture
    def queues(self, index, dataroot):
        return NuScenesQueueDataset(
            *(index, PIPELINE, dataroot),
            point_cloud_range=RANGE,
            queue_length=2,
            drop_history_frame=False,
            filter_empty_gt=False,
            extra_inputs=("lidar_depth",),
        )

    def test_points_lie_in_their_pixels(self, index, dataroot, queues):
        frame = index[1]
        path = dataroot / frame.lidar_path
        path.parent.mkdir(parents=True, exist_ok=True)
        points = np.zeros((3, 5), dtype=np.float32)
        points[:, :3] = [[0.3, 20.0, -1.5], [0.0, 12.0, -1.0], [0.3, 20.0, -1.5]]
        path.write_bytes(points.tobytes())
        depth = collate_queue([queues[1]])["inputs"]["lidar_depth"]
        assert depth.shape == (1, 1, 6, 32, 80)
        projected = PIPELINE.scale_lidar2img(frame.lidar2img, frame.image_hw)[0] @ [0.3, 20.0, -1.5, 1.0]
        column, row = (projected[:2] / projected[2]).astype(int)
        assert depth[0, 0, 0, row, column].item() == pytest.approx(projected[2], rel=1e-5)
        assert (depth > 0).sum() == 2

    def test_a_missing_sweep_has_a_way_out(self, dataroot, queues):
        with pytest.raises(ImagesBroken, match=r"LIDAR_TOP.*lidar_depth=False"):
            queues[0]


def test_unknown_velocities_stay_unknown_when_asked(index, dataroot):
    made = {
        choice: NuScenesQueueDataset(
            *(index, PIPELINE, dataroot), point_cloud_range=RANGE, unknown_velocity=choice
        )
        for choice in ("zero", "nan")
    }
    truths = {
        choice: torch.cat(
            [dataset.data_sample(row).gt_instances_3d.bboxes_3d.tensor for row in range(len(index))]
        )
        for choice, dataset in made.items()
    }
    unknown = truths["nan"].isnan()
    assert not truths["zero"].isnan().any()
    assert torch.equal(truths["nan"][~unknown], truths["zero"][~unknown])
    with pytest.raises(ConfigInvalid, match="unknown_velocity: expected one of zero, nan, got 'none'"):
        NuScenesQueueDataset(*(index, PIPELINE, dataroot), point_cloud_range=RANGE, unknown_velocity="none")
