"""A family that nobody here knows: through every command, unchanged, and shown in the docs as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from evaluation_cases import VERSION, write_ten_classes

from cache_schema import inspect_cache
from cache_schema.reader import TargetReader
from camera3d.detectors import Detector, build_detector
from camera3d.detectors.builder import load_config
from camera3d.evaluation import predict_split
from extract.dump_teacher import main as dump
from train.distill_from_cache import main as distil
from train.evaluate import main as evaluate

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # where the config finds the family

pytestmark = [pytest.mark.filterwarnings("ignore:nuScenes v1"), pytest.mark.usefixtures("one_thread")]

TEACHER = """
_base_ = ['{root}/configs/_base_/schedule_24ep.py', '{root}/configs/_base_/bevformer.py']
custom_imports = dict(imports=['slot_detector'])
model = dict(
    _delete_=True,
    type='SlotDetector',
    class_names={{{{_base_.class_names}}}},
    point_cloud_range=(-51.2, -51.2, -5.0, 51.2, 51.2, 3.0))
inputs = dict(scale=0.5, pad_hw=(48, 80), mean=(103.53, 116.28, 123.675), std=(58., 58., 58.), to_rgb=False)
queue_length = 1
train_cfg = dict(max_epochs=2, val_interval=2)
log_interval = 1
"""
STUDENT = """
_base_ = './teacher.py'
teacher = './teacher.py'
distiller = dict(
    init_from_teacher='none',
    terms=dict(pv_divergence=dict(), pv_generation=dict()),
    areas=dict(min_score=0.01))
"""


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Data, configs, a checkpoint of the family, and the store that it left."""
    folder = tmp_path_factory.mktemp("own")
    dataroot = write_ten_classes(tmp_path_factory.mktemp("nuscenes"))
    (folder / "teacher.py").write_text(TEACHER.format(root=ROOT))
    (folder / "student.py").write_text(STUDENT)
    torch.manual_seed(0)
    detector = build_detector(folder / "teacher.py")
    torch.save({"state_dict": detector.state_dict()}, folder / "teacher.pth")
    data = ["--dataroot", str(dataroot), "--version", VERSION, "--split", "all"]
    assert isinstance(detector, Detector)
    found = {"folder": folder, "dataroot": dataroot, "data": data, "detector": detector}
    for profile in ("exact", "compact", "focal"):
        found[profile] = folder / f"{profile}.zarr"
        weights = ["--checkpoint", str(folder / "teacher.pth"), "--profile", profile]
        options = ["--workers", "0", "--threads", "1", "--focal-min-score", "0.01"]
        teacher = str(folder / "teacher.py")
        assert dump([teacher, *data, *weights, *options, "--out", str(found[profile])]) == 0
    return found


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_inspection(case, profile, tmp_path, capsys):
    store = str(case[profile])
    assert inspect_cache.main(["verify", store]) == 0
    capsys.readouterr()
    assert inspect_cache.main(["info", store, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sealed"]
    assert facts["teacher_head"] is None
    assert not {"can_bus", "query_confident"} & {array["name"] for array in facts["arrays"]}
    token = TargetReader(store).sample_tokens[0]
    options = ["--png", str(tmp_path / "s.png"), "--dataroot", str(case["dataroot"])]
    assert inspect_cache.main(["show", store, token, *options]) == 0
    assert (tmp_path / "s.png").stat().st_size > 10_000


@pytest.mark.parametrize("profile", ["exact", "compact", "focal"])
def test_stored_detections_are_those_of_the_detector(case, profile):
    from camera3d.data import ImagePipeline, load_or_build_index

    config = load_config(case["folder"] / "teacher.py")
    index = load_or_build_index(str(case["dataroot"]), VERSION, "all")
    pipeline = ImagePipeline.from_config(config.inputs)
    options = {"device": "cpu", "workers": 0, "progress": False}
    reader = TargetReader(case[profile])
    for token, found in predict_split(case["detector"], index, pipeline, case["dataroot"], **options):
        stored = reader[token]
        torch.testing.assert_close(torch.from_numpy(stored["detection_boxes"]), found.boxes)
        torch.testing.assert_close(torch.from_numpy(stored["detection_scores"]), found.scores)


@pytest.mark.parametrize("profile", ["exact", "focal"])
def test_distil_and_evaluate(case, profile, tmp_path, capsys):
    student = str(case["folder"] / "student.py")
    options = ["--val-split", "none", "--workers", "0", "--work-dir", str(tmp_path / "work")]
    command = [student, "--cache", str(case[profile]), *case["data"], *options]
    if profile == "focal":
        assert distil(command) == 2
        assert "pv_divergence compares whole maps" in capsys.readouterr().err
        command += ["--cfg-options", "distiller.terms={'_delete_': True, 'pv_generation': {}}"]
    assert distil(command) == 0
    weights = ["--checkpoint", str(tmp_path / "work" / "last.pth")]
    capsys.readouterr()
    assert evaluate([student, *weights, *case["data"], "--workers", "0"]) == 0
    assert "NDS" in capsys.readouterr().out


def test_replayed_score(case, capsys):
    teacher, weights = str(case["folder"] / "teacher.py"), str(case["folder"] / "teacher.pth")
    assert evaluate([teacher, "--checkpoint", weights, *case["data"], "--workers", "0"]) == 0
    live = capsys.readouterr().out
    for profile in ("exact", "compact", "focal"):
        assert evaluate(["--from-cache", str(case[profile]), *case["data"]]) == 0
        assert capsys.readouterr().out == live


@pytest.mark.parametrize(
    ("term", "says"),
    [
        ("bev_heatmap", "compares BEV maps, and student and teacher do not both have one"),
        ("bev_generation", "compares BEV maps, and student and teacher do not both have one"),
        ("focal", "do not say where its queries read"),
        ("query", "as it has no object queries"),
    ],
)
def test_terms_that_ask_for_roles_it_lacks_are_refused(case, term, says, tmp_path, capsys):
    command = [str(case["folder"] / "student.py"), "--cache", str(case["exact"]), *case["data"]]
    command += ["--val-split", "none", "--workers", "0", "--work-dir", str(tmp_path / "work")]
    changed = f"distiller.terms={{'_delete_': True, '{term}': {{}}}}"
    assert distil([*command, "--cfg-options", changed]) == 2
    assert f"{term}: " in (err := capsys.readouterr().err)
    assert says in err


def test_a_start_is_refused_in_a_sentence(case, tmp_path, capsys):
    command = [str(case["folder"] / "student.py"), "--cache", str(case["exact"]), *case["data"]]
    command += ["--val-split", "none", "--workers", "0", "--work-dir", str(tmp_path / "work")]
    assert distil([*command, "--cfg-options", "distiller.init_from_teacher=head"]) == 2
    assert "SlotDetector has no head that could start from a teacher's" in capsys.readouterr().err


def test_the_page_shows_this_family():
    page = (ROOT / "docs" / "bring-your-own-detector.md").read_text()
    assert (HERE / "slot_detector.py").read_text() in page


def test_no_other_file_names_a_family():
    """But for the builder, which registers them."""
    families = [
        path.name for path in (ROOT / "camera3d/detectors").iterdir() if (path / "detector.py").is_file()
    ]
    assert {"bevdepth", "bevformer", "detr3d"} <= set(families)
    families.remove("query_based")
    for package in ("cache_schema", "camera3d", "extract", "train"):
        for path in (ROOT / package).rglob("*.py"):
            inside = path.relative_to(ROOT / package).parts[:2]
            if inside[0] == "detectors" and (inside[1] in families or inside[1] == "builder.py"):
                continue
            named = [family for family in families if family in path.read_text().lower()]
            assert not named, path
