"""The synthetic dataset as a whole: what nuScenes' devkit and our reader make of it, how it is written."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name

from camera3d.data.coco.reader import build_coco_index
from camera3d.data.kept_index import load_or_build_index
from camera3d.data.names import CAMERA_NAMES, CLASS_NAMES
from camera3d.data.nuscenes_reader import build_index
from camera3d.errors import ConfigInvalid
from synthetic_nuscenes import TRAIN_SPLIT, VAL_SPLIT, VERSION, generate
from synthetic_nuscenes.__main__ import main
from synthetic_nuscenes.frames import visible_boxes
from synthetic_nuscenes.options import OPTIONS_FILE, SyntheticOptions
from synthetic_nuscenes.rig import CAMERAS

IMAGE_HW = (90, 160)
SMALL = {"scenes": 2, "seconds": 2.0, "image_hw": IMAGE_HW}
TINY = {"scenes": 2, "seconds": 1.0, "image_hw": (36, 64), "density": 0.2}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("synthetic") / "set", **SMALL, processes=1)


@pytest.fixture(scope="module")
def nusc(root) -> NuScenes:
    return NuScenes(version=VERSION, dataroot=str(root), verbose=False)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("tiny") / "set", **TINY, processes=1)


def digests(folder: Path) -> dict[str, str]:
    """Every file below the folder and the hash of its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_rig_has_the_official_cameras_in_their_order():
    assert tuple(CAMERAS) == CAMERA_NAMES


def test_the_command_starts_without_torch():
    # It takes most of the time of a small dataset to import.
    code = "import sys, synthetic_nuscenes.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_devkit_loads_every_table_and_file(root, nusc):
    assert len(nusc.scene) == 2
    assert len(nusc.sample) == 8
    assert len(nusc.sample_data) == 8 * 7
    for record in nusc.sample_data:
        assert (root / record["filename"]).is_file()
    for sample in nusc.sample:
        assert set(sample["data"]) == {*CAMERA_NAMES, "LIDAR_TOP"}
        assert sample["anns"]


def test_the_devkit_renders(nusc, tmp_path):
    sample = nusc.sample[1]
    for channel in ("CAM_BACK", "LIDAR_TOP"):
        out = tmp_path / f"{channel}.png"
        nusc.render_sample_data(sample["data"][channel], out_path=str(out), verbose=False)
        assert out.stat().st_size > 10_000


def test_tracks_are_chains(nusc):
    for instance in nusc.instance:
        token, seen = instance["first_annotation_token"], []
        while token:
            record = nusc.get("sample_annotation", token)
            assert record["prev"] == (seen[-1] if seen else "")
            seen.append(token)
            token = record["next"]
        assert len(seen) == instance["nbr_annotations"]
        assert seen[-1] == instance["last_annotation_token"]


def test_points_of_the_sweep_lie_in_the_boxes(nusc):
    """num_lidar_pts are found in the box by the devkit too, which counts the ground there as well."""
    from nuscenes.utils.data_classes import LidarPointCloud
    from nuscenes.utils.geometry_utils import points_in_box

    sample = nusc.sample[0]
    path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
    cloud = LidarPointCloud.from_file(path).points[:3]
    counted, found = 0, 0
    for box in boxes:
        points = nusc.get("sample_annotation", box.token)["num_lidar_pts"]
        if points > 20 and box.name.startswith("vehicle"):
            counted += points
            found += points_in_box(box, cloud, wlh_factor=1.05).sum()
    assert counted > 200
    assert 0.95 * counted < found < 1.3 * counted


def test_motion_agrees_with_attributes(nusc):
    moving = 0
    for record in nusc.sample_annotation:
        names = [nusc.get("attribute", token)["name"] for token in record["attribute_tokens"]]
        detection = category_to_detection_name(record["category_name"])
        assert detection is not None
        assert bool(names) == (detection not in ("barrier", "traffic_cone"))
        speed = float(np.linalg.norm(nusc.box_velocity(record["token"])[:2]))
        if "vehicle.parked" in names or "pedestrian.standing" in names:
            assert not speed > 0.3
        if "vehicle.moving" in names and speed > 1.0:
            moving += 1
    assert moving > 10


@pytest.mark.parametrize(("split", "scene"), [(TRAIN_SPLIT, "scene-5001"), (VAL_SPLIT, "scene-5002")])
def test_our_index_reads_it_without_a_warning(root, split, scene):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = load_or_build_index(root, VERSION, split)
    assert index.notes == ()
    assert index.scene_names == (scene,)
    assert len(index) == 4
    assert index.columns["can_bus_present"].all()
    assert set(map(tuple, index.columns["image_hw"])) == {IMAGE_HW}


@pytest.mark.parametrize("split", [TRAIN_SPLIT, VAL_SPLIT])
def test_all_ten_classes_with_points_and_in_range(root, split):
    index = build_index(root, VERSION, split)
    boxes, labels = index.columns["gt_boxes"], index.columns["gt_labels"]
    ranges = config_factory("detection_cvpr_2019").class_range
    distance = np.hypot(boxes[:, 0], boxes[:, 1])
    for label, name in enumerate(CLASS_NAMES):
        usable = (labels == label) & index.columns["valid"] & (distance < ranges[name] - 1.0)
        assert usable.sum() >= 2, name


def test_can_bus_messages_follow_the_ego(root):
    index = build_index(root, VERSION, TRAIN_SPLIT)
    step_m = np.linalg.norm(np.diff(index.columns["ego_translation"], axis=0), axis=1)
    speed = index.columns["can_bus_messages"][:, 6]  # vel comes last, forward first
    between = 0.25 * (speed[:-1] + speed[1:])  # half a second at the mean of both
    assert step_m.max() > 0.5
    np.testing.assert_allclose(step_m, between, atol=0.35)


def test_ground_truth_scored_against_itself(nusc, tmp_path):
    results = {}
    for sample in nusc.sample:
        results[sample["token"]] = [
            {
                "sample_token": sample["token"],
                "translation": record["translation"],
                "size": record["size"],
                "rotation": record["rotation"],
                "velocity": np.nan_to_num(nusc.box_velocity(record["token"])[:2]).tolist(),
                "detection_name": category_to_detection_name(record["category_name"]),
                "detection_score": 0.5,
                "attribute_name": "".join(
                    nusc.get("attribute", t)["name"] for t in record["attribute_tokens"]
                ),
            }
            for record in (nusc.get("sample_annotation", token) for token in sample["anns"])
            if record["num_lidar_pts"]
        ]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {"use_camera": True}, "results": results}))
    config = config_factory("detection_cvpr_2019")
    scorer = DetectionEval(nusc, config, str(path), VAL_SPLIT, str(tmp_path / "out"), verbose=False)
    metrics, _ = scorer.evaluate()
    summary = metrics.serialize()
    assert summary["mean_ap"] > 0.99
    assert all(error < 0.01 for error in summary["tp_errors"].values())
    assert summary["nd_score"] > 0.99


def test_two_processes_write_the_same_bytes(tiny, tmp_path):
    other = generate(tmp_path / "two", **TINY, processes=2)
    assert digests(other) == digests(tiny)
    assert len(digests(tiny)) == 2 * 2 * 7 + 2 + 2 + 14 + 1  # sensors, maps, CAN bus, tables, options


def test_another_seed_differs(tiny, tmp_path):
    other = generate(tmp_path / "other", **TINY, seed=1, processes=1)
    ours, theirs = digests(tiny), digests(other)
    assert set(ours) == set(theirs)
    images = [name for name in ours if name.endswith(".jpg")]
    assert all(ours[name] != theirs[name] for name in images)
    assert ours[f"{VERSION}/sample_annotation.json"] != theirs[f"{VERSION}/sample_annotation.json"]


def test_a_finished_dataset_is_left_alone(tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    assert generate(tiny, **TINY) == tiny
    assert "left as it is" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_other_options_are_refused(tiny):
    with pytest.raises(ConfigInvalid, match=r"seed: asked for 3, there is 0"):
        generate(tiny, **TINY, seed=3)


def test_a_foreign_folder_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ConfigInvalid, match="holds no synthetic dataset"):
        generate(tmp_path, **TINY)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_killed_run_is_replaced(tiny, tmp_path):
    out = tmp_path / "set"
    out.mkdir()  # an empty folder is taken
    long = {**TINY, "seconds": 60.0, "processes": 2}
    writer = multiprocessing.get_context("fork").Process(target=generate, args=(out,), kwargs=long)
    writer.start()
    until = time.monotonic() + 60.0
    while not any(tmp_path.glob(".set.partial/samples/*/*.jpg")):
        assert time.monotonic() < until, "the writer has not begun"
        time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    assert not any(out.iterdir())
    generate(out, **TINY, processes=1)
    assert digests(out) == digests(tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_two_writers_of_one_dataset_are_refused(tmp_path):
    with (tmp_path / ".set.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigInvalid, match="another process is writing"):
            generate(tmp_path / "set", **TINY)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scenes": 1}, "scenes is 1"),
        ({"scenes": 5000}, "scenes is 5000"),
        ({"seconds": 0.1}, "seconds is 0.1"),
        ({"image_hw": (10, 2000)}, "image size is 10x2000"),
        ({"seed": -1}, "seed is -1"),
        ({"val_share": 1.0}, "val_share is 1"),
        ({"density": 9.0}, "density is 9"),
        ({"processes": 0}, "processes is 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_broken_options_are_refused(tmp_path, options, says):
    with pytest.raises(ConfigInvalid, match=says):
        generate(tmp_path / "set", **options)
    assert not any(tmp_path.iterdir())


def test_every_fault_is_named_at_once():
    with pytest.raises(ConfigInvalid, match=r"(?s)scenes is 0.*seed is -4"):
        SyntheticOptions(scenes=0, seed=-4)


def test_options_come_back_from_json(tiny):
    raw = json.loads((tiny / OPTIONS_FILE).read_text())
    options = SyntheticOptions(**TINY)
    assert SyntheticOptions.from_dict(raw) == options
    with pytest.raises(ConfigInvalid, match="missing or unknown weather"):
        SyntheticOptions.from_dict({**raw, "weather": "rain"})


@pytest.mark.parametrize(
    ("scenes", "share", "val"), [(2, 0.2, 1), (20, 0.2, 4), (3, 0.99, 2), (100, 0.001, 1)]
)
def test_each_split_has_a_scene(scenes, share, val):
    assert SyntheticOptions(scenes=scenes, val_share=share).val_scenes == val


def test_command_answers(tiny, capsys):
    size = "x".join(map(str, TINY["image_hw"]))
    command = [
        "--out",
        str(tiny),
        "--scenes",
        "2",
        "--seconds",
        "1",
        "--image-size",
        size,
        "--density",
        "0.2",
    ]
    assert main(command) == 0
    assert f"version {VERSION}" in capsys.readouterr().out
    assert main([*command, "--seed", "8"]) == 2
    assert "seed: asked for 8" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--out", str(tiny), "--image-size", "450"])


def test_coco_boxes_are_of_what_is_visible(tmp_path, tiny):
    """Both splits are read; boxes lie in the pictures; all else is, byte by byte, as without them."""
    root = generate(tmp_path / "set", **TINY, processes=1, coco=True)
    height, width = TINY["image_hw"]
    for split in (TRAIN_SPLIT, VAL_SPLIT):
        index = build_coco_index(root, VERSION, split, class_names=CLASS_NAMES, images_per_group=6)
        assert len(index) == 2 * len(CAMERAS)
        assert len(index.scene_rows) == 2
        boxes = index.columns["gt_boxes"]
        assert len(boxes) > 0
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= (width, height)).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert all((root / frame.image_paths[0]).is_file() for frame in index)
    with_boxes, without = digests(root), digests(tiny)
    more = {name for name in with_boxes if name.startswith("annotations/")}
    assert len(more) == 2
    assert {n: d for n, d in with_boxes.items() if n not in more | {OPTIONS_FILE}} == {
        n: d for n, d in without.items() if n != OPTIONS_FILE
    }
    assert SyntheticOptions.from_dict(json.loads((root / OPTIONS_FILE).read_text())).coco
    with pytest.raises(ConfigInvalid, match="coco: asked for False, there is True"):
        generate(root, **TINY, processes=1)


def test_visible_boxes_are_tight():
    owner = np.full((6, 8), -1)
    owner[1:5, 2:7] = 3
    owner[2, 2] = 1  # one pixel of another one in front
    owner[0, 0:2] = 0
    named = np.array([True, True, False, True])
    assert visible_boxes(owner, named, least_pixels=2).tolist() == [[0, 0, 0, 2, 1, 2], [3, 2, 1, 7, 5, 19]]
    assert visible_boxes(owner, ~named).shape == (0, 6)
    assert visible_boxes(np.full((2, 2), -1), named).shape == (0, 6)
