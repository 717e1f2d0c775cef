"""RetinaNet and a DETR of mmdet through every command, on pictures of several sizes."""

from __future__ import annotations

import json

import pytest
import torch
from coco_cases import VERSION, write_coco
from image2d_cases import write_config, write_distillation

from cache_schema import inspect_cache
from cache_schema.reader import TargetReader
from camera3d.detectors import build_detector
from camera3d.logs import quiet_mmengine
from extract.dump_teacher import main as dump
from train.distill_from_cache import main as distil
from train.evaluate import main as evaluate
from train.train_detector import main as train

TERMS = {
    "retinanet": "dict(pv_divergence=dict(), pv_area_divergence=dict(),"
    " pv_generation=dict(weight=2e-5, reduction='sum', mask_ratio=0.65))",
    "deformable_detr": "dict(pv_area_divergence=dict(), query=dict(box_weight=5.0))",
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(TERMS))
def case(request, tmp_path_factory):
    """Data, configs, a teacher's weights, and the stores that it left."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    dataroot = write_coco(folder / "coco")
    data = ["--dataroot", str(dataroot), "--version", VERSION]
    config = write_config(folder, name)
    torch.manual_seed(0)
    detector = build_detector(config)
    with quiet_mmengine():
        detector.init_weights()
    torch.save({"state_dict": detector.state_dict()}, folder / "teacher.pth")
    student = write_distillation(folder, name, TERMS[name])
    found = {"name": name, "folder": folder, "data": data, "config": str(config), "student": str(student)}
    found |= {"dataroot": dataroot, "weights": str(folder / "teacher.pth")}
    for profile in ("exact", "focal"):
        store = str(folder / f"{profile}.zarr")
        command = [
            found["config"],
            "--checkpoint",
            found["weights"],
            *data,
            "--split",
            "train",
            "--out",
            store,
        ]
        options = ["--workers", "0", "--threads", "1", "--profile", profile, "--focal-min-score", "0.001"]
        assert dump([*command, *options]) == 0
        found[profile] = store
    return found


@pytest.mark.parametrize("profile", ["exact", "focal"])
def test_inspection(case, profile, tmp_path, capsys):
    store = case[profile]
    assert inspect_cache.main(["verify", store]) == 0
    capsys.readouterr()
    assert inspect_cache.main(["info", store, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sealed"]
    reader = TargetReader(store)
    assert reader.spec.dataset.name == "coco"
    assert reader.spec.inputs.camera_order == ("image",)
    stored = reader["000000000007"]
    assert stored["detection_boxes"].shape[1] == 4
    assert stored["image_hw"].tolist() == [80, 48]
    assert stored["valid_hw"].tolist() == [96, 58]
    png = tmp_path / "s.png"
    command = ["show", store, "000000000028", "--png", str(png), "--dataroot", str(case["dataroot"])]
    assert inspect_cache.main(command) == 0
    assert "place" in capsys.readouterr().out
    assert png.stat().st_size > 10_000
    assert inspect_cache.main(["report", store, "--out", str(tmp_path / "r.html")]) == 2
    assert "take show --png" in capsys.readouterr().err


def test_focal_keeps_the_areas_and_nothing_of_the_padding(case):
    stored = TargetReader(case["focal"])["000000000000"]  # 48 × 80: 58 × 96 in an input of 96 × 96
    (mask,) = stored["pv_feats_0_mask"]
    assert mask[:8].any()
    assert not mask[8:].any()


def test_replayed_score(case, capsys):
    split = [*case["data"], "--split", "train"]
    checkpoint = [case["config"], "--checkpoint", case["weights"], "--workers", "0"]
    assert evaluate([*checkpoint, *split]) == 0
    live = capsys.readouterr().out
    assert live.startswith("mAP ")
    for profile in ("exact", "focal"):
        assert evaluate(["--from-cache", case[profile], *split]) == 0
        assert capsys.readouterr().out == live
    assert evaluate(["--from-cache", case["exact"], *case["data"], "--split", "val"]) == 2
    assert "lacks 5 of the 5 samples of split 'val'" in capsys.readouterr().err


def test_train_alone_and_score_its_results(case, tmp_path, capsys):
    work = tmp_path / "work"
    assert train([case["config"], *case["data"], "--work-dir", str(work)]) == 0
    assert (work / "last.pth").is_file()
    metrics = json.loads((work / "validation" / "metrics.json").read_text())
    assert 0 <= metrics["numbers"]["mAP"] <= 1
    results = str(work / "validation" / "results_coco.json")
    capsys.readouterr()
    assert evaluate(["--results", results, *case["data"], "--split", "val"]) == 0
    assert "kite" in capsys.readouterr().out


@pytest.mark.parametrize("profile", ["exact", "focal"])
def test_distil(case, profile, tmp_path, capsys):
    work = tmp_path / "work"
    command = [case["student"], "--cache", case[profile], *case["data"], "--work-dir", str(work)]
    command += ["--val-split", "none"]
    if profile == "focal" and case["name"] == "retinanet":
        assert distil(command) == 2
        assert "pv_divergence compares whole maps" in capsys.readouterr().err
        command += ["--cfg-options", "distiller.terms.pv_divergence=None"]
        command[-1] = "distiller.terms={'_delete_': True, 'pv_area_divergence': {}, 'pv_generation': {}}"
    assert distil(command) == 0
    said = capsys.readouterr().err
    assert "pv_area_divergence" in said
    assert "weights of the head start from the teacher's" in said
    weights = torch.load(work / "last.pth", weights_only=True)["state_dict"]
    assert {key.split(".")[0] for key in weights} >= {"backbone", "neck", "bbox_head"}


def test_live_teacher_gives_what_the_store_gives(case, tmp_path, capsys):
    """The first step's losses, from the store and from the teacher itself."""
    losses = {}
    for source in ("cache", "live"):
        given = ["--cache", case["exact"]] if source == "cache" else ["--teacher-checkpoint", case["weights"]]
        command = [case["student"], *given, *case["data"], "--work-dir", str(tmp_path / source)]
        assert distil([*command, "--val-split", "none", "--teacher-source", source]) == 0
        (log,) = (tmp_path / source).glob("*/vis_data/scalars.json")
        losses[source] = json.loads(log.read_text().splitlines()[0])
    for name, value in losses["cache"].items():
        if name.startswith("loss"):
            assert losses["live"][name] == pytest.approx(value, rel=2e-2, abs=1e-4)
    assert capsys.readouterr().out.count("last.pth") == 2


def test_another_dataset_is_refused(case, capsys):
    """A 2D detector shown a nuScenes-like folder, and the store of a COCO split asked for nuScenes' score."""
    where = ["--dataroot", str(case["folder"]), "--version", "v1.0-mini", "--split", "mini_val"]
    assert evaluate([case["config"], "--checkpoint", case["weights"], *where]) == 2
    assert "no COCO-format dataset at" in capsys.readouterr().err
    assert evaluate(["--from-cache", case["exact"], *where]) == 2
    assert "no COCO-format dataset at" in capsys.readouterr().err
