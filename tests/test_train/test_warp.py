"""Augmented training equals warped targets: a teacher says of an augmented sample what it said, moved."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from evaluation_cases import VERSION
from mmengine.config import Config
from nuscenes_tables import write_nuscenes
from train_cases import prepare

from camera3d.checkpoint import load_official
from camera3d.data.augmentation import Augmentation, Drawn, ImageDraw, Moves, bev_matrix
from camera3d.detectors import build_detector
from extract.run import DumpOptions, run_dump
from train.engine.run import DistillOptions
from train.targets import DistortedLiveSource, TargetWarp, TeacherTargets

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.filterwarnings("ignore:nuScenes v1"), pytest.mark.usefixtures("one_thread")]
IMAGE = 64  # pixels a side: quarter turns take cells to cells
RANGE_M = (-32.0, -32.0, -5.0, 32.0, 32.0, 3.0)
# The four terms of FD3D, and the two of HeatmapDistiller.
FD3D = ("pv_generation", "bev_generation", "focal", "query")
TERMS = {name: {} for name in (*FD3D, "pv_divergence", "bev_heatmap")}
CONFIG = """
_base_ = ['{root}/configs/_base_/schedule_24ep.py', '{root}/configs/_base_/bevformer.py']
custom_imports = dict(imports=['movable_detector'])
model = dict(
    _delete_=True,
    type='MovableDetector',
    frame='{frame}',
    class_names={{{{_base_.class_names}}}},
    point_cloud_range={range_m})
inputs = dict(
    scale=1.0, pad_hw=({side}, {side}), mean=(103., 116., 123.), std=(58., 58., 58.), to_rgb=False,
    resize='{resize}')
queue_length = 1
distort = False
"""


@pytest.fixture(scope="module", params=["lidar", "ego"])
def case(request, tmp_path_factory, one_thread):
    """A teacher, its store, and the config of a student, with BEV maps in one of the two frames."""
    folder = tmp_path_factory.mktemp(request.param)
    scenes = {"scene-0061": 2}
    dataroot = write_nuscenes(
        tmp_path_factory.mktemp("nuscenes"),
        version=VERSION,
        scenes=scenes,
        starts_s={"scene-0061": 10.0},  # cameras fire before the LiDAR: not before the drive
        image_hw=(IMAGE, IMAGE),
        splits={"all": list(scenes)},
    )
    resize = {"lidar": "opencv", "ego": "pillow_keep_bottom"}[request.param]
    text = CONFIG.format(root=ROOT, frame=request.param, side=IMAGE, resize=resize, range_m=RANGE_M)
    (folder / "teacher.py").write_text(text)
    torch.manual_seed(7)  # another one than the student's
    teacher = build_detector(folder / "teacher.py")
    torch.save({"state_dict": teacher.state_dict()}, folder / "teacher.pth")
    run_dump(
        DumpOptions(
            config=str(folder / "teacher.py"),
            dataroot=str(dataroot),
            version=VERSION,
            split="all",
            out=str(folder / "teacher.zarr"),
            checkpoint=str(folder / "teacher.pth"),
            profile="exact",
            workers=0,
            threads=1,
        )
    )
    config = Config.fromfile(folder / "teacher.py")
    config.merge_from_dict(
        {
            "teacher": "teacher.py",
            "distiller": {"terms": TERMS, "init_from_teacher": "none", "areas": {"min_score": 0.01}},
            "augmentation": {"image": {}, "bev": {}},
        }
    )
    config.dump(folder / "student.py")
    options = DistillOptions(
        config=str(folder / "student.py"),
        dataroot=str(dataroot),
        version=VERSION,
        split="all",
        val_split="none",
        work_dir="unused",
        workers=0,
        cache=str(folder / "teacher.zarr"),
    )
    teacher = build_detector(folder / "teacher.py")
    load_official(teacher, folder / "teacher.pth")
    return SimpleNamespace(
        dataroot=dataroot, teacher=teacher, folder=folder, options=options, got=prepare(options)
    )


def images(*of_cameras: tuple[bool, float], zoom: float = 1.0) -> tuple[ImageDraw, ...]:
    """Mirrored or not, and turned by so many degrees; the last one for all further cameras."""
    draws = [ImageDraw(zoom=zoom, left=0.0, mirrored=m, degrees=d) for m, d in of_cameras]
    return (*draws, *[draws[-1]] * (6 - len(draws)))


def ground(degrees: float = 0.0, scale: float = 1.0, *, x: bool = False, y: bool = False):
    return bev_matrix(degrees, scale, mirror_x=x, mirror_y=y)


@contextlib.contextmanager
def drawn(what: Drawn):
    with mock.patch.object(Augmentation, "draw", return_value=what):
        yield


def batch_of(case, what: Drawn) -> dict:
    with drawn(what):
        return case.got.batch(case.dataroot, batch_size=2)


EXACT = {
    "nothing": Drawn(None, None),
    "mirrored pictures": Drawn(images((True, 0)), None),
    "turned pictures": Drawn(images((False, 90), (True, 90), (False, 180), (True, -90), (False, 0)), None),
    "mirrored in x": Drawn(None, ground(x=True)),
    "mirrored in y": Drawn(None, ground(y=True)),
    "a quarter turn": Drawn(None, ground(90)),
    "half a turn, mirrored": Drawn(None, ground(180, x=True)),
    "everything": Drawn(images((True, 90), (False, -90), (True, 0)), ground(-90, y=True)),
}


@pytest.mark.parametrize("name", EXACT)
def test_warped_targets_are_those_of_an_augmented_teacher(case, name):
    batch = batch_of(case, EXACT[name])
    inputs, samples, extras = batch["inputs"], batch["data_samples"], batch["extras"]
    model = case.got.model
    warped = model.source.targets(inputs, samples, extras)
    augmented = DistortedLiveSource(case.teacher, (IMAGE, IMAGE)).targets(inputs, samples, {})
    close = {"atol": 2e-4, "rtol": 2e-4}
    for one in ("pv", "ground"):
        torch.testing.assert_close(warped.map(one), augmented.map(one), **close)
        assert warped.map(one).std() > 0.05
    names = ("query_logits", "query_boxes", "sampling_locations", "attention_weights", "focal_feats")
    for one in names:
        torch.testing.assert_close(warped.queries(one), augmented.queries(one), **close)
    ours, theirs = (targets.detected_boxes(min_score=0.01, at_most=9) for targets in (warped, augmented))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own[:, :6], other[:, :6], **close)
        torch.testing.assert_close(own[:, 6].cos(), other[:, 6].cos(), **close)
        torch.testing.assert_close(own[:, 6].sin(), other[:, 6].sin(), **close)

    areas = model.areas(augmented, inputs, samples, {})
    for own, other in zip(extras["areas"], areas, strict=True):
        assert torch.equal(own.bev.weight, other.bev.weight)
        assert own.bev.weight.any()
        torch.testing.assert_close(own.heatmap.weight, other.heatmap.weight)
        torch.testing.assert_close(own.confidence.weight, other.confidence.weight, **close)
        assert own.confidence.weight.all()
        for mine, its in zip(own.images, other.images, strict=True):
            assert torch.equal(mine.weight, its.weight)
        assert all(level.all() for level in own.seen)
    outputs = model.student.history.outputs(model.student, inputs)
    losses = {}
    unmoved = TeacherTargets(extras["targets"], warped.layout)
    for key, targets, where in (
        ("warped", warped, extras["areas"]),
        ("augmented", augmented, areas),
        ("unmoved", unmoved, areas),
    ):
        torch.manual_seed(0)
        losses[key] = model.distillation_losses(outputs, targets, where)
    for term in losses["augmented"]:
        torch.testing.assert_close(losses["warped"][term], losses["augmented"][term], rtol=1e-4, atol=1e-6)
        assert losses["augmented"][term] > 0
    assert {
        term for term in TERMS if any(f"{key}_".startswith(f"loss_{term}_") for key in losses["warped"])
    } == set(TERMS)
    if name == "everything":
        told = {key for key, v in losses["unmoved"].items() if abs(v / losses["augmented"][key] - 1) > 2e-3}
        expected = {"loss_pv_generation_0", "loss_bev_generation", "loss_focal", "loss_bev_heatmap"}
        assert expected | ({"loss_query_boxes"} if case.teacher.frame == "lidar" else set()) <= told


def test_cells_that_the_teacher_did_not_see_are_left_out(case):
    """Smaller pictures and a turned ground: the student sees more than the teacher did."""
    batch = batch_of(case, Drawn(images((False, 0), (True, 20), zoom=0.6), ground(30)))
    inputs, samples, extras = batch["inputs"], batch["data_samples"], batch["extras"]
    model = case.got.model
    targets = model.source.targets(inputs, samples, extras)
    maps = model.maps
    for number, areas in enumerate(extras["areas"]):
        (seen,) = areas.seen
        assert 0.2 < seen.float().mean() < 0.6
        assert not (areas.images[0].weight & ~seen).any()
        on_ground = targets.inside("ground", (16, 16))[number]
        assert not on_ground[0, 0]
        assert on_ground[8, 8]
        assert 0.6 < on_ground.float().mean() < 0.99
        assert not (areas.bev.weight[0] & ~on_ground).any()
        assert not areas.heatmap.weight[~on_ground].any()
    outputs = model.student.history.outputs(model.student, inputs)
    torch.manual_seed(0)
    before = model.distillation_losses(outputs, targets, extras["areas"])
    # Whatever stands there, no loss looks at it.
    (level,) = maps.levels

    def spoilt(name, values, moves, *, real=TargetWarp.map):
        moved = real(targets.warp, name, values, moves)
        inside = targets.warp.inside(name, tuple(values.shape[-2:]), moves)
        return moved.where(inside[:, None] if name == level.teacher.name else inside, 1e3)

    with mock.patch.object(TargetWarp, "map", lambda self, *args: spoilt(*args)):
        torch.manual_seed(0)
        after = model.distillation_losses(outputs, targets, extras["areas"])
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)


def warp(**changes) -> TargetWarp:
    given = {
        "image_hw": (32, 64),
        "pixels": {"pv": 8.0},
        "extents_m": {"bev": (-8.0, -8.0, -1.0, 8.0, 8.0, 1.0), "reference_points": (-8.0, -8, -1, 8, 8, 1)},
        "bev_map": "bev",
        "bev_hw": (8, 8),
    }
    return TargetWarp(**{**given, **changes})


def moved(image=None, bev=None) -> Moves:
    still = torch.eye(4).double()
    image = still if image is None else image
    bev = still if bev is None else torch.from_numpy(bev)
    return Moves(image.expand(2, 4, 4), bev, bev)


class TestPlaces:
    def test_no_move_changes_nothing(self):
        maps = torch.randn(2, 3, 4, 8)
        torch.testing.assert_close(warp().map("pv", maps, moved()), maps)
        assert warp().inside("pv", (4, 8), moved()).all()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_maps_keep_their_precision(self, dtype):
        maps = torch.randn(3, 8, 8).to(dtype)
        turned = warp().map("bev", maps, moved(bev=ground(90)))
        assert turned.dtype == dtype
        # What was ahead (x) is on the left (y): a quarter counter-clockwise, rows along y.
        torch.testing.assert_close(turned, torch.rot90(maps, -1, (1, 2)), atol=1e-3, rtol=1e-3)

    def test_a_shifted_picture(self):
        shift = torch.eye(4).double()
        shift[0, 3] = 16.0
        maps = torch.randn(2, 3, 4, 8)
        found = warp().map("pv", maps, moved(image=shift))
        torch.testing.assert_close(found[..., 2:], maps[..., :6])
        assert warp().inside("pv", (4, 8), moved(image=shift))[0, 0].tolist() == [False] * 2 + [True] * 6

    def test_a_point_that_left_the_map_takes_its_query_along(self):
        points = torch.full((1, 3, 1, 1, 2, 2), 0.5)
        points[0, 1, ..., 0] = 0.95  # under a half larger scale it leaves the map
        points[0, 2, ..., 1] = 1.4  # was outside: nothing was read there, and nothing is
        moves = moved(bev=ground(scale=1.5))
        assert warp().kept({"sampling_locations": points}, moves).tolist() == [True, False, True]
        found = warp().queries("sampling_locations", points, moves)
        torch.testing.assert_close(found[0, 0], points[0, 0])
        assert (found[0, 2] < -1).all()

    def test_a_camera_that_does_not_see_a_point_does_not_count(self):
        points, visible = torch.full((1, 2, 2, 2), 0.9), torch.ones(1, 2, 2, dtype=torch.bool)
        visible[0, 0] = False
        shift = torch.eye(4).double()
        shift[0, 3] = 16.0
        arrays = {"image_points": points, "image_visible": visible}
        assert warp().kept(arrays, moved(image=shift)).tolist() == [True, False]
        found = warp().queries("image_points", points, moved(image=shift))
        torch.testing.assert_close(found[0, 0, 0], torch.tensor([0.9 + 16 / 64, 0.9]))

    def test_reference_points_move_in_metres(self):
        points = torch.tensor([[[0.75, 0.5, 0.5]]])
        found = warp().queries("reference_points", points, moved(bev=ground(90)))
        torch.testing.assert_close(found, torch.tensor([[[0.5, 0.75, 0.5]]]))

    def test_no_query_is_asked_for_where_none_reads(self):
        assert warp().kept({}, moved()) is None
