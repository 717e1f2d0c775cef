"""The index against the devkit: order, projections, boxes, velocities."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from index_cases import assert_same
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes_tables import edit_table, token
from pyquaternion import Quaternion

from camera3d.data import CAMERA_NAMES, CLASS_NAMES, NuScenesIndex, build_index
from camera3d.errors import SampleUnknown, ShapeMismatch

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")
SCENES = {"scene-0553": 3, "scene-0061": 4, "scene-0103": 2}


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    # The scene table names scene-0553 first, but scene-0061 was driven before it.
    return tiny_nuscenes(
        scenes=SCENES, starts_s={"scene-0553": 300.0, "scene-0061": 100.0, "scene-0103": 0.0}
    )


@pytest.fixture(scope="module")
def nusc(dataroot):
    return NuScenes("v1.0-mini", str(dataroot), verbose=False)


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, "v1.0-mini", "mini_train")


def test_scenes_and_frames_come_in_time_order(index):
    assert index.scene_names == ("scene-0061", "scene-0553")
    assert [len(scene.frames) for scene in index.scenes] == [4, 3]
    stamps = [frame.timestamp_us for frame in index.frames()]
    assert stamps == sorted(stamps)
    assert len(index) == len(stamps) == 7
    assert [frame.scene_name for frame in index] == ["scene-0061"] * 4 + ["scene-0553"] * 3
    assert index.scenes[1].frames[-1].sample_token == token("sample", "scene-0553", 2)


def test_cameras_come_in_the_official_order(index, dataroot):
    for frame in index:
        assert [path.split("/")[1] for path in frame.image_paths] == list(CAMERA_NAMES)
        assert all((dataroot / path).is_file() for path in frame.image_paths)
        assert frame.image_hw == (90, 160)
    official = "FRONT FRONT_RIGHT FRONT_LEFT BACK BACK_LEFT BACK_RIGHT"
    assert tuple(f"CAM_{name}" for name in official.split()) == CAMERA_NAMES


def test_lidar2img_is_the_devkits_chain(index, nusc):
    """A LiDAR point taken through the devkit's records with Quaternion objects, one step after the other."""
    rng = np.random.default_rng(1)
    points = rng.uniform(-30, 30, (20, 3))
    for frame in index:
        sample = nusc.get("sample", frame.sample_token)
        for slot, channel in enumerate(CAMERA_NAMES):
            top, camera = (nusc.get("sample_data", sample["data"][c]) for c in ("LIDAR_TOP", channel))
            steps = points.T
            for data, inverse in ((top, False), (camera, True)):
                pose = nusc.get("ego_pose", data["ego_pose_token"])
                calibrated = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
                for record in (pose, calibrated) if inverse else (calibrated, pose):
                    rotation = Quaternion(record["rotation"]).rotation_matrix
                    shift = np.array(record["translation"])[:, None]
                    steps = rotation.T @ (steps - shift) if inverse else rotation @ steps + shift
            expected = np.array(calibrated["camera_intrinsic"]) @ steps
            ours = frame.lidar2img[slot] @ np.vstack((points.T, np.ones(20)))
            np.testing.assert_allclose(ours[:3], expected, atol=1e-8)  # global coordinates reach 1e3 m
            np.testing.assert_allclose(ours[3], 1.0)


def test_boxes_are_the_devkits_in_the_lidar_frame(index, nusc):
    seen = 0
    for frame in index:
        sample = nusc.get("sample", frame.sample_token)
        _, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
        boxes = [box for box in boxes if category_to_detection_name(box.name)]
        assert [box.token for box in boxes] == list(frame.annotation_tokens)
        for box, ours, label in zip(boxes, frame.gt_boxes, frame.gt_labels, strict=True):
            width, length, height = box.wlh
            yaw = box.orientation.yaw_pitch_roll[0]
            np.testing.assert_allclose(ours[:7], [*box.center, length, width, height, yaw], atol=1e-9)
            assert frame.class_names[label] == category_to_detection_name(box.name)
            seen += 1
    assert seen == 7 * 5 - 2  # six tracks, one no detection class, one not annotated once in each scene


def test_velocities_are_the_devkits_turned_as_the_official_info_files_do(index, nusc):
    for frame in index:
        top = nusc.get("sample_data", nusc.get("sample", frame.sample_token)["data"]["LIDAR_TOP"])
        ego = Quaternion(nusc.get("ego_pose", top["ego_pose_token"])["rotation"])
        lidar = Quaternion(nusc.get("calibrated_sensor", top["calibrated_sensor_token"])["rotation"])
        for annotation, ours in zip(frame.annotation_tokens, frame.gt_boxes, strict=True):
            across = np.array([*nusc.box_velocity(annotation)[:2], 0.0])
            turned = lidar.rotation_matrix.T @ ego.rotation_matrix.T @ across
            np.testing.assert_allclose(ours[7:], turned[:2], atol=1e-9)
    assert all(np.isfinite(f.gt_boxes).all() for f in index.scenes[0].frames)


def test_a_track_of_one_box_has_no_velocity(tiny_nuscenes):
    frame = build_index(tiny_nuscenes(scenes={"scene-0061": 1}), "v1.0-mini", "mini_train")[0]
    assert np.isnan(frame.gt_boxes[:, 7:]).all()
    assert np.isfinite(frame.gt_boxes[:, :7]).all()


def test_neighbours_too_far_apart_give_no_velocity(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2}, tracks=1)

    def spread(records):
        records[1]["timestamp"] = records[0]["timestamp"] + 1_600_000

    edit_table(root, "sample", spread)
    index = build_index(root, "v1.0-mini", "mini_train", max_gap_s=2.0)
    assert np.isnan(index[0].gt_boxes[0, 7:]).all()  # the devkit trusts neighbours up to 1.5 s apart


def test_boxes_without_points_are_kept_and_marked(index):
    frame = index[0]
    names = [frame.class_names[label] for label in frame.gt_labels]
    assert names == ["car", "pedestrian", "bus", "traffic_cone", "bus"]
    assert frame.num_lidar_pts.tolist() == [5, 6, 0, 0, 10]
    assert frame.valid.tolist() == [True, True, True, False, True]  # the bus is seen by radar


def test_ego_pose_is_that_of_the_lidar_sweep(index, nusc):
    for frame in index:
        top = nusc.get("sample_data", nusc.get("sample", frame.sample_token)["data"]["LIDAR_TOP"])
        pose = nusc.get("ego_pose", top["ego_pose_token"])
        assert frame.ego_translation.tolist() == pose["translation"]
        assert frame.ego_rotation.tolist() == pose["rotation"]
        np.testing.assert_allclose(
            frame.ego_pose[:3, :3], Quaternion(pose["rotation"]).rotation_matrix, atol=1e-12
        )


def test_the_test_split_has_no_annotations(tiny_nuscenes):
    root = tiny_nuscenes(version="v1.0-test", scenes={"scene-0077": 2}, tracks=0)
    index = build_index(root, "v1.0-test", "test")
    assert [len(frame.gt_boxes) for frame in index] == [0, 0]
    assert index[1].gt_boxes.shape == (0, 9)
    assert index[1].annotation_tokens == ()


def test_custom_split_of_the_devkit(tiny_nuscenes):
    root = tiny_nuscenes(splits={"mine": ["scene-0103", "scene-0061", "scene-0061"]})
    assert build_index(root, "v1.0-mini", "mine").scene_names == ("scene-0061", "scene-0103")


def test_scenes_can_be_chosen(dataroot, index):
    chosen = build_index(dataroot, "v1.0-mini", "mini_train", scenes=["scene-0553"])
    assert_same(chosen, index.select(["scene-0553"]))
    assert_same(index.select(index.scene_names), index)
    with pytest.raises(SampleUnknown, match=r"scene-0554 .*did you mean scene-0553"):
        index.select(["scene-0554"])
    with pytest.raises(SampleUnknown, match="scene-0061, scene-0553"):
        build_index(dataroot, "v1.0-mini", "mini_train", scenes=["nonsense", "scene-0061"])


def test_lookup_by_token(index):
    assert index.by_token(index[5].sample_token).timestamp_us == index[5].timestamp_us
    assert index[-1].sample_token == index[6].sample_token
    with pytest.raises(SampleUnknown, match=r"'0000' is not in split 'mini_train'.*7 samples"):
        index.by_token("0000")
    with pytest.raises(IndexError):
        index[7]


def test_frames_cannot_be_changed_by_accident(index):
    with pytest.raises(ValueError, match="read-only"):
        index[0].lidar2img[0, 0, 0] = 1.0


def test_columns_that_do_not_fit_are_reported_together(index):
    columns = dict(index.columns)
    columns["timestamp_us"] = columns["timestamp_us"][:-1]
    columns["image_hw"] = columns["image_hw"].astype(np.float64)
    del columns["valid"]
    with pytest.raises(ShapeMismatch, match=r"(?s)timestamp_us.*image_hw.*valid: missing"):
        NuScenesIndex(version="v", split="s", scene_rows=index.scene_rows, columns=columns)


def test_a_worker_gets_arrays_and_no_devkit(index):
    index.row_of(index[0].sample_token)  # fills the dictionary, which a worker need not receive
    assert index.__getstate__()["_row_of_token"] is None
    kinds = {type(value) for value in index.columns.values()}
    assert kinds == {np.ndarray}
    assert not any(array.dtype.hasobject for array in index.columns.values())
    assert b"nuscenes.nuscenes" not in pickle.dumps(index)
    payload = sum(array.nbytes for array in index.columns.values())
    assert len(pickle.dumps(index)) < payload + 8_000
    assert_same(pickle.loads(pickle.dumps(index)), index)


def test_class_order_is_the_official_one(index):
    assert index.class_names == CLASS_NAMES
    assert CLASS_NAMES[:3] == ("car", "truck", "construction_vehicle")
    assert CLASS_NAMES[3:] == (
        *("bus", "trailer", "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone"),
    )
