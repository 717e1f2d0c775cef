"""BEVDepth through every command: its maps lie in the ego frame, and it has no queries."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from bevdepth_stages import make_case
from evaluation_cases import VERSION
from mmengine.config import Config
from train_cases import prepare, recorded_losses

from cache_schema import inspect_cache
from cache_schema.reader import TargetReader
from camera3d.boxes import move_boxes
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, StreamingFrames
from camera3d.data.augmentation import Augmentation, Drawn, bev_matrix
from camera3d.detectors import build_detector
from camera3d.detectors.bevdepth.rig import frustum_geometry
from camera3d.detectors.samples import ground_truth
from camera3d.instance_areas import bev_area
from camera3d.streaming import run_scene
from train.distill_from_cache import main as distil
from train.distillers.areas import AreaOptions, heatmap, image_areas
from train.engine.data import train_loader
from train.engine.run import DistillOptions
from train.evaluate import main as evaluate
from train.targets import TargetsUnfit

pytestmark = [pytest.mark.filterwarnings("ignore:nuScenes v1"), pytest.mark.usefixtures("one_thread")]
RANGE_M = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


@pytest.fixture(scope="module")
def case(tmp_path_factory, one_thread):
    """See make_case."""
    folders = (tmp_path_factory.mktemp(name) for name in ("bevdepth", "nuscenes"))
    return make_case(*folders, ("exact", "compact", "focal"))


def seen_by_hand(case):
    """Items and outputs of the first scene, frame by frame."""
    detector = build_detector(case.folder / "teacher.py")
    load_official(detector, case.folder / "teacher.pth")
    pipeline = ImagePipeline.from_config(Config.fromfile(case.folder / "teacher.py").inputs)
    frames = StreamingFrames(case.index, pipeline, case.dataroot)
    first = case.index.scene_rows[0]
    items = [frames[row] for row in range(first.first, first.stop)]
    return detector, list(run_scene(detector, items, torch.device("cpu")))


def test_the_store_holds_what_the_teacher_saw(case):
    detector, seen = seen_by_hand(case)
    reader = TargetReader(case.exact)
    specs = {array.name: array for array in reader.spec.arrays}
    assert {name: specs[name].frame for name in ("bev_feats", "bev_lifted")} == {
        "bev_feats": "ego",
        "bev_lifted": "ego",
    }
    assert specs["bev_lifted"].shape == (16, 16, 16)
    assert len([name for name in specs if name.startswith("task")]) == 36
    for item, outputs in seen:
        stored = reader[item["sample_token"]]
        for name, values in outputs.items():
            expected = values[0].numpy().astype(stored[name].dtype)
            np.testing.assert_array_equal(stored[name], expected, name)
        (found,) = detector.decode(outputs)
        np.testing.assert_allclose(stored["detection_boxes"], found.boxes, atol=1e-5)
        assert len(found.boxes)
    # The second frame saw the first.
    key, before = (seen[1][1]["bev_lifted"][0, half] for half in (slice(8), slice(8, 16)))
    assert not torch.allclose(key, before)


def test_areas_of_a_focal_store_lie_in_the_ego_frame(case):
    reader = TargetReader(case.focal)
    token = reader.sample_tokens[0]
    stored, frame = reader[token], case.index.by_token(token)
    mask = torch.from_numpy(stored["bev_feats_mask"])
    np.testing.assert_array_equal(stored["bev_lifted_mask"], mask)
    lidar2ego = torch.from_numpy(stored["lidar2ego"])
    options = {"map_hw": (16, 16), "xy_range_m": (-51.2, -51.2, 51.2, 51.2), "margin_m": 0.5}
    truth = torch.tensor(frame.gt_boxes)[:, :7]
    assert (mask | ~bev_area(move_boxes(truth, lidar2ego), **options)).all()
    # The frames are turned against each other by a quarter: elsewhere the areas would miss the boxes.
    assert not (mask | ~bev_area(truth, **options)).all() or mask.all()


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_inspection(case, profile, tmp_path, capsys):
    store = str(getattr(case, profile))
    assert inspect_cache.main(["verify", store]) == 0
    capsys.readouterr()
    assert inspect_cache.main(["info", store, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sealed"]
    token = TargetReader(store).sample_tokens[0]
    options = ["--png", str(tmp_path / "s.png"), "--dataroot", str(case.dataroot)]
    assert inspect_cache.main(["show", store, token, *options]) == 0
    assert (tmp_path / "s.png").stat().st_size > 10_000


def test_a_plan_needs_no_weights(case, capsys):
    split = ["--version", "v1.0-trainval", "--split", "train", "--profile", "exact"]
    assert inspect_cache.main(["plan", str(case.folder / "teacher.py"), *split]) == 0
    assert "bev_lifted" in capsys.readouterr().out


def command(case, profile: str, work, *changes: str) -> list[str]:
    words = [str(case.folder / "student.py"), "--cache", str(getattr(case, profile)), *case.data]
    words += ["--val-split", "none", "--workers", "0", "--work-dir", str(work)]
    return [*words, "--cfg-options", *changes] if changes else words


def test_distil_and_evaluate(case, tmp_path, capsys):
    with recorded_losses() as steps:
        assert distil(command(case, "exact", tmp_path / "work")) == 0
    assert steps
    wanted = {"loss_pv_generation_0", "loss_pv_divergence_0", "loss_bev_generation", "loss_bev_heatmap"}
    wanted |= {"loss_depth", "task0.loss_heatmap", "task5.loss_bbox"}
    for losses in steps:
        assert wanted <= set(losses)
        assert all(np.isfinite(value) for value in losses.values())
        assert losses["loss_depth"] > 0
    weights = ["--checkpoint", str(tmp_path / "work" / "last.pth")]
    capsys.readouterr()
    assert evaluate([str(case.folder / "student.py"), *weights, *case.data, "--workers", "0"]) == 0
    assert "NDS" in capsys.readouterr().out


def test_without_lidar_the_depth_is_not_trained(case, tmp_path):
    changes = ("lidar_depth=False", "model.criterion.depth_weight=0.0", "train_cfg.max_epochs=1")
    with recorded_losses() as steps:
        assert distil(command(case, "exact", tmp_path / "work", *changes)) == 0
    assert all("loss_depth" not in losses for losses in steps)


def options(case, config: Path, **changes) -> DistillOptions:
    given = {
        "config": str(config),
        "dataroot": str(case.dataroot),
        "version": VERSION,
        "split": "all",
        "val_split": "none",
        "work_dir": "unused",
        "workers": 0,
        "cache": str(case.exact),
        **changes,
    }
    return DistillOptions(**given)


@pytest.mark.parametrize("drawn_by", ["worker", "training"])
def test_areas_and_heatmaps_lie_where_the_head_looks(case, drawn_by):
    """In the ego frame on BEV maps, whoever draws them; on images in the LiDAR frame."""
    got = prepare(options(case, case.folder / "still.py"))
    batch = got.batch(case.dataroot)
    inputs, samples = batch["inputs"], batch["data_samples"]
    targets = got.model.source.targets(inputs, samples, batch["extras"])
    (drawn,) = got.model.areas(targets, inputs, samples, batch["extras"] if drawn_by == "worker" else {})
    (truth,) = ground_truth(samples)
    moved = move_boxes(truth.boxes, inputs["lidar2ego"][0, -1])
    maps = got.model.maps
    expected = heatmap(moved, maps.bev)
    torch.testing.assert_close(drawn.heatmap.weight, expected)
    assert not torch.allclose(heatmap(truth.boxes, maps.bev), expected)
    area = bev_area(moved[:, :7], map_hw=(16, 16), xy_range_m=(-51.2, -51.2, 51.2, 51.2), margin_m=0.5)
    for region in (drawn.bev, drawn.hidden_bev):
        assert (region.weight[0].bool() | ~area).all()
    silhouettes = image_areas(truth.boxes[:, :7], inputs["lidar2img"][0, -1], maps.levels, AreaOptions())
    for region, silhouette in zip(drawn.images, silhouettes, strict=True):
        assert silhouette.any()
        assert (region.weight.bool() | ~silhouette).all()


def test_an_augmented_student_is_shown_one_moved_world(case):
    """Its boxes, cells and cameras move together: the pooled map of a turned ground is the turned map."""
    turned = Drawn(None, bev_matrix(90, 1.0, mirror_x=True, mirror_y=False))
    batches = {}
    for name, drawn in (("still", Drawn(None, None)), ("turned", turned)):
        got = prepare(options(case, case.folder / "student.py"))
        with mock.patch.object(Augmentation, "draw", return_value=drawn):
            batches[name] = got.batch(case.dataroot)
    assert torch.equal(batches["still"]["inputs"]["images"], batches["turned"]["inputs"]["images"])
    moves = batches["turned"]["extras"]["moves"][0]
    student = got.model.student.eval()
    cells = {}
    for name, batch in batches.items():
        frame = {key: values[:, -1] for key, values in batch["inputs"].items()}
        rig = student._rig(frame)
        cells[name] = frustum_geometry(student.backbone.frustum, rig)[0]
        (truth,) = ground_truth(batch["data_samples"])
        batch["boxes"] = move_boxes(truth.boxes, frame["lidar2ego"][0])
    wanted = cells["still"].double() @ moves.bev[:3, :3].T
    torch.testing.assert_close(cells["turned"].double(), wanted, atol=1e-3, rtol=1e-4)
    expected = move_boxes(batches["still"]["boxes"], moves.bev)
    torch.testing.assert_close(batches["turned"]["boxes"], expected, atol=1e-3, rtol=1e-4)
    warped = got.model.source.targets(
        *(batches["turned"][key] for key in ("inputs", "data_samples", "extras"))
    )
    plain = got.model.source.targets(*(batches["still"][key] for key in ("inputs", "data_samples", "extras")))
    # Turned by a quarter, then x mirrored: rows and columns change places.
    torch.testing.assert_close(warped.map("bev_feats"), plain.map("bev_feats").transpose(-1, -2))


def test_a_student_streams(case, tmp_path):
    """Frame by frame, with the features of the frame before instead of its image."""
    changes = ("history=stream", "segment_length=3", "single_frame_steps=0", "train_cfg.max_epochs=1")
    with recorded_losses() as steps:
        assert distil(command(case, "exact", tmp_path / "work", *changes)) == 0
    assert steps
    for losses in steps:
        assert losses["loss_depth"] > 0
        assert losses["loss_bev_generation"] > 0
        assert all(np.isfinite(value) for value in losses.values())


def test_frames_of_a_stream_have_what_the_detector_reads(case):
    config = Config.fromfile(case.folder / "student.py")
    config.merge_from_dict({"history": "stream", "single_frame_steps": 0})
    names = (*(detector := build_detector(config)).inputs, *detector.training_inputs)
    given = {"batch_size": 2, "workers": 0, "seed": 0, "inputs": names}
    inputs = next(iter(train_loader(config, case.index, case.dataroot, **given)))["inputs"]
    assert set(names) <= set(inputs)
    assert inputs["lidar2ego"].shape == (2, 1, 4, 4)
    assert inputs["lidar_depth"].shape == (2, 1, 6, 32, 96)


@pytest.mark.parametrize(
    ("term", "says"),
    [("focal", "do not say where its queries read"), ("query", "as it has no object queries")],
)
def test_terms_of_queries_are_refused(case, term, says, tmp_path, capsys):
    changed = f"distiller.terms={{'_delete_': True, '{term}': {{}}}}"
    assert distil(command(case, "exact", tmp_path / "work", changed)) == 2
    assert f"{term}: " in (err := capsys.readouterr().err)
    assert says in err


@pytest.mark.parametrize(("kind", "depth"), [("head", False), ("head_and_encoder", True)])
def test_what_the_head_starts_from(case, kind, depth, tmp_path):
    config = Config.fromfile(case.folder / "student.py")
    config.distiller = {"terms": {}, "init_from_teacher": kind}
    config.dump(case.folder / f"{kind}.py")
    weights = prepare(options(case, case.folder / f"{kind}.py")).model.student.state_dict()
    teacher = torch.load(case.folder / "teacher.pth", weights_only=True)["state_dict"]
    equal = {key for key in teacher if torch.equal(weights[key], teacher[key])}
    assert {key for key in teacher if key.startswith("head.")} <= equal
    assert ("backbone.depth_net.depth_conv.5.weight" in equal) == depth
    assert "backbone.img_backbone.conv1.weight" not in equal


def test_a_start_of_queries_is_refused(case):
    config = Config.fromfile(case.folder / "student.py")
    config.distiller = {"terms": {}, "init_from_teacher": "released"}
    config.dump(case.folder / "released.py")
    with pytest.raises(TargetsUnfit, match=r"BEVDepth has none: set distiller.init_from_teacher='head'"):
        prepare(options(case, case.folder / "released.py"))
