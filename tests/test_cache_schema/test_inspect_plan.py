"""A plan knows the arrays that a dump will write, from the config file alone."""

from pathlib import Path

import pytest

from cache_schema import inspect_cache
from cache_schema.errors import CacheError
from cache_schema.inspection import planned_arrays as planned
from cache_schema.inspection.plan import FocalShares, costs
from cache_schema.inspection.planned_arrays import planned_arrays

CONFIGS = Path(__file__).parents[2] / "configs"
DETECTORS = ["demo/student.py", "student/bevformer_tiny.py", "student/detr3d_r50.py"]
BASE = CONFIGS / "teacher/bevformer_base.py"
DETECTIONS = 300 * (9 * 4 + 4 + 2)  # bytes a sample
SHARES = FocalShares(cells=0.05, queries=0.1, background_block=8)


def base_costs(**changes):
    options = {
        "version": "v1.0-trainval",
        "split": "train",
        "profile": "exact",
        "groups": ("bev", "pv", "queries"),
        "shares": SHARES,
        "fps": 5.0,
        "epochs": 24,
        "gpus": 1,
        "read_gb_s": 2.0,
    }
    return costs(BASE, **(options | changes))


@pytest.mark.parametrize("name", DETECTORS)
def test_arrays_are_those_of_the_dump(name):
    from camera3d.detectors import build_detector
    from camera3d.detectors.builder import load_config
    from extract.store_spec import teacher_arrays

    config = load_config(CONFIGS / name)
    detector = build_detector(config)
    for groups in (("bev", "pv", "queries"), ("pv",), ("bev", "queries")):
        stored, left = teacher_arrays(detector, config.inputs.pad_hw, groups)
        assert planned_arrays(CONFIGS / name, groups) == tuple(stored)
        assert {array.name for array in stored}.isdisjoint(array.name for array in left)


def test_a_distillation_is_sent_to_its_teacher():
    config = CONFIGS / "distill/bevformer_base_to_small_fd3d.py"
    with pytest.raises(CacheError, match=r"is for a distillation.* give .*configs/teacher/bevformer_base.py"):
        planned_arrays(config, ("bev",))


def test_numbers_of_the_base_teacher():
    found = base_costs()
    assert (found.samples, found.scenes) == (28_130, 700)
    assert found.bytes_per_sample == 122_821_712 + DETECTIONS
    assert found.dump_hours == pytest.approx(28_130 / 5 / 3600)
    assert found.live_hours_per_epoch == pytest.approx(4 * found.dump_hours)
    assert found.read_hours_per_epoch == pytest.approx(28_130 * found.bytes_per_sample / 2e9 / 3600)
    # 570 scenes of 40 samples and 130 of 41: the finest level takes 5 shards (15 samples fit into 1 GiB: 3).
    per_scene = 2 + sum(1 + shards for shards in (3, 1, 1, 1, 1, *([1] * 12)))
    assert found.files == 3 + 700 * per_scene


def test_it_pays_sooner_with_smaller_stores():
    exact, compact, focal = (base_costs(profile=profile) for profile in ("exact", "compact", "focal"))
    assert exact.pays_after_epochs > compact.pays_after_epochs > focal.pays_after_epochs > 0.25
    assert compact.bytes_per_sample < 0.55 * exact.bytes_per_sample
    assert focal.bytes_per_sample < 8e6
    assert base_costs(read_gb_s=0.1).pays_after_epochs is None
    assert base_costs(fps=None).pays_after_epochs == 0.25


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "mini_train"}, "known: v1.0-trainval train"),
        ({"profile": "tiny"}, "exact, compact, focal"),
        ({"groups": ("maps",)}, "--arrays takes"),
    ],
)
def test_what_is_not_known(changes, words):
    with pytest.raises(CacheError, match=words):
        base_costs(**changes)


def test_command(capsys):
    argv = [
        "plan",
        str(BASE),
        "--version",
        "v1.0-trainval",
        "--split",
        "val",
        "--profile",
        "focal",
        "--fps",
        "5",
    ]
    assert inspect_cache.main([*argv, "--fps", "5"]) == 0
    out = capsys.readouterr().out
    for words in ("6,019 in 150 scenes", "pv_feats_0_cells", "pays after", "5.0% of the cells"):
        assert words in out


def test_a_config_that_cannot_be_built(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("model = dict(type='Nobody')\ninputs = dict()")
    with pytest.raises(CacheError, match="'Nobody' is not registered"):
        planned_arrays(path, ("pv",))


def test_where_no_detector_is_installed(monkeypatch):
    monkeypatch.setattr(planned, "entry_points", lambda group: ())
    with pytest.raises(CacheError, match="needs focalcache's detectors, which is not installed here"):
        planned_arrays(BASE, ("pv",))
