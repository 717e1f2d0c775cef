"""`show` puts the teacher's boxes where they are: held to the conversions that the detectors use.

With FOCALCACHE_NUSCENES_KEYFRAME (a nuScenes dataroot with one keyframe of scene-0061) also on real images.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from corruption_cases import profile_store
from projection_cases import box_corners as reference_corners
from projection_cases import project_points
from truth_cases import ground_truth_store

from cache_schema import inspect_cache
from cache_schema.errors import CacheError
from cache_schema.inspection import boxes as boxes_module
from cache_schema.inspection.boxes import best_boxes, box_corners, project_edge
from cache_schema.inspection.camera_panels import pen_points
from cache_schema.inspection.dataset_tables import DatasetTables
from cache_schema.inspection.projections import norm_map, pca_rgb, sampling_density
from cache_schema.inspection.sample import load_sample

KEYFRAME = os.environ.get("FOCALCACHE_NUSCENES_KEYFRAME")
RANGE_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)
PNG_START = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def tiny(tiny_nuscenes):
    from camera3d.data import build_index

    dataroot = tiny_nuscenes(scenes={"scene-0061": 1})
    (frame,) = build_index(dataroot, "v1.0-mini", "mini_train")
    return dataroot, frame


def test_corners_and_projection_are_those_of_the_detectors():
    rng = np.random.default_rng(0)
    boxes = np.concatenate([rng.uniform(-3, 3, (20, 3)), rng.uniform(1, 5, (20, 4))], axis=1)
    corners = box_corners(boxes)
    np.testing.assert_allclose(corners, reference_corners(boxes))
    lidar2img = np.array([[100.0, 0, 50, 0], [0, 100, 40, 0], [0, 0, 1, 10], [0, 0, 0, 1]])
    pixels, _ = project_points(corners.reshape(-1, 3), lidar2img)
    np.testing.assert_allclose(project_edge(corners[0, 0], corners[0, 7], lidar2img), pixels[[0, 7]])


def test_front_of_a_box_is_where_it_heads():
    corners = box_corners(np.array([[1.0, 2, 0, 4, 2, 1, np.pi / 2]]))[0]
    front = {corner for edge in boxes_module.FRONT_EDGES for corner in edge}
    assert {corner for corner in range(8) if corners[corner, 1] > 3.9} == front


def test_edges_through_the_camera_plane_are_cut():
    camera = np.eye(4)
    assert project_edge(np.array([0, 0, -1.0]), np.array([1, 0, -2.0]), camera) is None
    cut = project_edge(np.array([0, 0, -1.0]), np.array([2, 0, 1.0]), camera)
    np.testing.assert_allclose(cut, [[1.1 / 0.1, 0], [2, 0]])


def test_best_boxes():
    scores, labels = np.array([0.88, 0.73, 0.1], np.float32), np.array([1, 0, 1], np.int16)
    huge = np.full((3, 9), np.inf, np.float32)
    found = best_boxes(huge, scores, labels, threshold=0.3)
    assert found.labels.tolist() == [1, 0]
    assert found.threshold == 0.3
    assert found.boxes[:, 3:6].max() == boxes_module.LARGEST_M
    none = best_boxes(huge, scores / 10, labels, threshold=0.3, else_best=2)
    assert none.threshold is None
    assert len(none.scores) == 2


def test_colours():
    maps = np.random.default_rng(0).normal(size=(2, 5, 4, 6)).astype(np.float16)
    colours = pca_rgb(maps)
    assert colours.shape == (2, 4, 6, 3)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert pca_rgb(np.zeros((1, 3, 3), np.float16)).shape == (3, 3, 3)
    assert norm_map(np.full((4, 2, 2), 3, np.float16)).tolist() == [[6, 6], [6, 6]]


def test_density_is_where_the_weights_are():
    locations = np.array([[[[0.9, 0.1]], [[0.1, 0.9]]]])  # (layer, query, point, xy)
    density = sampling_density(locations, np.ones((1, 2, 1)), np.array([0.75, 0.25]), (2, 2))
    np.testing.assert_allclose(density, [[0, 0.75], [0.25, 0]])


@pytest.mark.filterwarnings("ignore:nuScenes v1")
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_picture_and_statistics(tiny, tmp_path, capsys, scale):
    dataroot, frame = tiny
    truth = ground_truth_store(tmp_path / "s.zarr", frame, scale)
    np.testing.assert_allclose(
        load_sample(tmp_path / "s.zarr", frame.sample_token, 0.3).boxes.boxes[:, :6], truth[:, :6], atol=1e-5
    )
    png = tmp_path / "s.png"
    argv = ["show", str(tmp_path / "s.zarr"), frame.sample_token, "--png", str(png)]
    assert inspect_cache.main([*argv, "--dataroot", str(dataroot)]) == 0
    with_images = png.read_bytes()
    assert with_images.startswith(PNG_START)
    out = capsys.readouterr().out
    for words in (
        frame.sample_token,
        "scene-0061",
        f"{len(truth)} with a score of 0.3",
        "bev_feats",
        str(png),
    ):
        assert words in out
    assert inspect_cache.main(argv) == 0
    assert len(png.read_bytes()) < len(with_images)


def test_image_files(tiny):
    from camera3d.data import CAMERA_NAMES

    dataroot, frame = tiny
    found = DatasetTables(dataroot, "v1.0-mini").image_files(frame.sample_token, CAMERA_NAMES)
    assert [str(path.relative_to(dataroot)) for path in found.values()] == list(frame.image_paths)


@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_ground_truth_is_that_of_the_index(tiny_nuscenes):
    from camera3d.data import CLASS_NAMES, build_index

    dataroot = tiny_nuscenes(scenes={"scene-0061": 3, "scene-0553": 2})
    tables = DatasetTables(dataroot, "v1.0-mini")
    n_boxes = 0
    for frame in build_index(dataroot, "v1.0-mini", "mini_train"):
        found = tables.ground_truth(frame.sample_token, CLASS_NAMES)
        np.testing.assert_allclose(found.boxes, frame.gt_boxes[:, :7], atol=1e-6)
        assert found.labels.tolist() == frame.gt_labels.tolist()
        n_boxes += len(found.boxes)
    assert n_boxes > 10
    assert tables.ground_truth(frame.sample_token, ("car",)).labels.tolist() == [0]


def test_ground_truth_of_a_split_without_annotations(tiny):
    _, frame = tiny
    assert len(DatasetTables(tiny[0], "v1.0-mini").ground_truth(frame.sample_token, ()).boxes) == 0


def test_broken_tables(tiny_nuscenes):
    dataroot = tiny_nuscenes(scenes={"scene-0061": 1})
    (dataroot / "v1.0-mini" / "sample_data.json").write_text("")
    with pytest.raises(CacheError, match="are not those of nuScenes"):
        DatasetTables(dataroot, "v1.0-mini").image_files("somewhere", ("CAM_FRONT",))


def test_titles_and_pens(tiny, tmp_path, monkeypatch):
    dataroot, frame = tiny
    truth = ground_truth_store(tmp_path / "s.zarr", frame, 1.0)
    texts = []
    monkeypatch.setattr("matplotlib.figure.SubFigure.text", lambda *args, **_: texts.append(args[3]))
    argv = ["show", str(tmp_path / "s.zarr"), frame.sample_token, "--png", str(tmp_path / "s.png")]
    assert inspect_cache.main([*argv, "--dataroot", str(dataroot)]) == 0
    assert not any("UNTRAINED" in text for text in texts)
    assert any(f"{len(truth)} boxes of the ground truth, dashed" in text for text in texts)
    assert pen_points(160) > pen_points(240) > pen_points(1600) > 0.5


@pytest.mark.parametrize(
    ("token", "dataroot", "words"),
    [("scene-0001-token0", "nowhere", "sensor.json is missing"), ("elsewhere", None, "SampleMissing")],
)
def test_what_cannot_be_shown(tmp_path, capsys, token, dataroot, words):
    store = profile_store(tmp_path / "s.zarr", "exact", {"scene-0001": 1})
    argv = ["show", str(store), token, "--png", str(tmp_path / "s.png")]
    argv += ["--dataroot", str(tmp_path / dataroot)] if dataroot else []
    assert inspect_cache.main(argv) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_every_profile_has_a_picture(tmp_path, profile):
    store = profile_store(tmp_path / "s.zarr", profile, {"scene-0001": 1})
    png = tmp_path / "s.png"
    assert inspect_cache.main(["show", str(store), "scene-0001-token0", "--png", str(png)]) == 0
    assert png.read_bytes().startswith(PNG_START)


def test_without_matplotlib(tmp_path, capsys, monkeypatch):
    store = profile_store(tmp_path / "s.zarr", "exact", {"scene-0001": 1})
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    argv = ["show", str(store), "scene-0001-token0"]
    assert inspect_cache.main([*argv, "--png", str(tmp_path / "s.png")]) == 2
    assert "pip install 'focalcache[inspect]'" in capsys.readouterr().err
    assert inspect_cache.main(argv) == 0


@pytest.mark.skipif(not KEYFRAME, reason="FOCALCACHE_NUSCENES_KEYFRAME names no dataroot with a keyframe")
@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_on_a_real_keyframe(tmp_path):
    from camera3d.data import build_index

    (frame,) = build_index(KEYFRAME, "v1.0-mini", "mini_train")
    assert len(ground_truth_store(tmp_path / "s.zarr", frame, 0.5)) == 51
    png = tmp_path / "s.png"
    argv = ["show", str(tmp_path / "s.zarr"), frame.sample_token, "--png", str(png), "--dataroot", KEYFRAME]
    assert inspect_cache.main(argv) == 0
    assert png.stat().st_size > 500_000
    found = DatasetTables(Path(KEYFRAME), "v1.0-mini").image_files(frame.sample_token, small_cameras(frame))
    assert [str(path.relative_to(KEYFRAME)) for path in found.values()] == list(frame.image_paths)


def small_cameras(frame):
    """Names of the cameras in the order of the frame's images."""
    return [path.split("/")[1] for path in frame.image_paths]
