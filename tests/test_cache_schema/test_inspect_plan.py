"""A plan knows the arrays that a dump will write, from the config file alone."""

from pathlib import Path

import pytest

from cache_schema import inspect_cache
from cache_schema.errors import CacheError
from cache_schema.inspection.config_file import read_config
from cache_schema.inspection.plan import FocalShares, costs
from cache_schema.inspection.planned_arrays import planned_arrays

CONFIGS = Path(__file__).parents[2] / "configs"
DETECTORS = ["teacher/bevformer_base.py", "student/bevformer_small.py", "student/bevformer_tiny.py"]
BASE = CONFIGS / "teacher/bevformer_base.py"
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
    import torch

    from camera3d.detectors import build_detector
    from extract.store_spec import chosen_arrays

    with torch.device("meta"):
        detector = build_detector(CONFIGS / name)
    config = read_config(CONFIGS / name)
    for groups in (("bev", "pv", "queries"), ("pv",), ("bev", "queries")):
        expected = chosen_arrays(detector, config["inputs"]["pad_hw"], groups)
        assert planned_arrays(config, groups) == expected


@pytest.mark.parametrize("name", DETECTORS)
def test_configs_read_as_mmengine_reads_them(name):
    from mmengine.config import Config

    assert read_config(CONFIGS / name) == Config.fromfile(CONFIGS / name).to_dict()


def test_numbers_of_the_base_teacher():
    found = base_costs()
    assert (found.samples, found.scenes) == (28_130, 700)
    assert found.bytes_per_sample == 122_821_712
    assert found.dump_hours == pytest.approx(28_130 / 5 / 3600)
    assert found.live_hours_per_epoch == pytest.approx(4 * found.dump_hours)
    assert found.read_hours_per_epoch == pytest.approx(28_130 * 122_821_712 / 2e9 / 3600)
    # 570 scenes of 40 samples and 130 of 41: the finest level takes 5 shards (15 samples fit into 1 GiB: 3).
    per_scene = 2 + sum(1 + shards for shards in (3, 1, 1, 1, 1, *([1] * 9)))
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import os", "line 1: only assignments"),
        ("a = open('x')", r"line 1: open\('x'\) is no literal"),
        ("a = b", "line 1: b is no literal"),
        ("a = dict(**c)", "no literal"),
        ("a = (", "line 1"),
        ("_base_ = 'config.py'", "base of itself"),
        ("_base_ = 'elsewhere.py'", "no config file"),
    ],
)
def test_configs_that_cannot_be_read(tmp_path, text, words):
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(CacheError, match=words):
        read_config(path)


def test_laying_a_config_over_its_base(tmp_path):
    (tmp_path / "base.py").write_text("x = -1\nm = dict(a=dict(p=1, q=2), b=[1], c={'k': None})\nn = x")
    path = tmp_path / "top.py"
    path.write_text(
        "'doc'\n_base_ = ['base.py']\nm = dict(a=dict(_delete_=True, r=3), b=(2,), d=dict(e=True))"
    )
    assert read_config(path) == {
        "x": -1,
        "n": -1,
        "m": {"a": {"r": 3}, "b": (2,), "c": {"k": None}, "d": {"e": True}},
    }
