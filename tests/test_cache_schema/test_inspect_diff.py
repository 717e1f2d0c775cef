"""`diff` says how far two stores are apart, also when they store the same teacher in other profiles."""

import math
import shutil

import numpy as np
import pytest
from corruption_cases import profile_store

from cache_schema import inspect_cache
from cache_schema.inspection.diff import ArrayDifference, Difference, as_text, difference

SCENES = {"scene-0001": 2, "scene-0002": 1}
ARRAYS = ["pv_feats_0", "bev_feats", "query_logits", "query_boxes", "can_bus"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    return {
        name: profile_store(folder / f"{name}.zarr", name, SCENES) for name in ("exact", "compact", "focal")
    }


def test_equal_stores(stores, capsys):
    found = difference(stores["exact"], stores["exact"])
    assert found.samples == 3
    assert list(found.arrays) == ARRAYS
    for array in found.arrays.values():
        assert (array.largest, array.relative, array.snr_db, array.cosine) == (0, 0, math.inf, 1)
    assert inspect_cache.main(["diff", str(stores["exact"]), str(stores["exact"])]) == 0
    assert "equal" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["compact", "focal"])
def test_profiles_of_one_teacher(stores, other):
    found = difference(stores["exact"], stores[other])
    assert list(found.arrays) == ARRAYS
    for name, array in found.arrays.items():
        if "feats" in name:
            # int8 in steps of 1/127 of the channel's largest: at most half a step off, and fp16 before it.
            assert 0 < array.relative <= 0.5 / 127 + 1e-3
            assert array.snr_db > 35
        else:
            assert array.largest == 0
    whole = difference(stores["exact"], stores["exact"])
    kept = found.arrays["bev_feats"].n_values / whole.arrays["bev_feats"].n_values
    assert kept == 1 if other == "compact" else 0.1 < kept < 0.5
    assert found.partial == (other == "focal")


def test_two_small_ones(stores):
    for profile in ("compact", "focal"):
        assert difference(stores[profile], stores[profile]).within(0)
    found = difference(stores["compact"], stores["focal"])
    assert found.within(0.01)
    assert not found.within(0)


def test_tolerance_decides_the_exit_code(stores, capsys):
    argv = ["diff", str(stores["exact"]), str(stores["compact"])]
    assert inspect_cache.main(argv) == 1
    assert "beyond tolerance" in capsys.readouterr().out
    assert inspect_cache.main([*argv, "--tolerance", "0.01"]) == 0


def test_samples_in_one_store_only(stores, tmp_path, capsys):
    part = tmp_path / "part.zarr"
    shutil.copytree(stores["exact"], part)
    (part / "sealed.json").unlink()
    shutil.rmtree(part / "scenes/scene-0002")
    assert inspect_cache.main(["diff", str(stores["exact"]), str(part)]) == 0
    out = capsys.readouterr().out
    assert "2 samples in both" in out
    assert "1 samples only in the first:\n  scene-0002-token0" in out


def test_nothing_in_common_is_not_equal(stores, tmp_path, capsys):
    other = profile_store(tmp_path / "other.zarr", "exact", {"scene-0009": 1})
    assert inspect_cache.main(["diff", str(stores["exact"]), str(other)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("nothing was compared: the stores have no sample in common; the first has 3, ")


def test_no_array_in_common_is_said():
    found = Difference(samples=2, arrays_only_in_a=["a", "b"], arrays_only_in_b=["c"])
    assert "no array in common; the first has 2, such as a, the second 1, such as c" in as_text(found, 0.0)


def test_the_numbers():
    array = ArrayDifference()
    array.add(np.array([3.0, 4.0]), np.array([3.0, 3.5]))
    array.add(np.array([0.0]), np.array([0.0]))
    assert array.largest == 0.5
    assert array.relative == 0.125
    assert array.snr_db == pytest.approx(10 * math.log10(25 / 0.25))
    assert array.cosine == pytest.approx(23 / (5 * math.hypot(3, 3.5)))
    array.add(np.array([0.0]), np.array([1.0]))
    assert array.relative == math.inf
