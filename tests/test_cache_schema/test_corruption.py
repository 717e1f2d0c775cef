"""No single byte of a store can change unnoticed; benchmarks/corruption.py does this at length."""

import pytest
from corruption_cases import MISSED, outcomes, profile_store, random_flips, sealed_store

from cache_schema.inspection.verify import verify
from cache_schema.profiles import PROFILES


@pytest.mark.parametrize("profile", PROFILES)
def test_every_flipped_byte_is_noticed(tmp_path, profile):
    store = profile_store(tmp_path / "teacher.zarr", profile, {"scene-0001": 2, "scene-0002": 1})
    flips = random_flips(store, 60, seed=0)
    assert [flip for flip, outcome in outcomes(store, flips) if outcome == MISSED] == []


def test_a_number_that_turns_infinite(tmp_path):
    store = sealed_store(tmp_path / "teacher.zarr", {"scene-0001": 1})
    root = (store / "zarr.json").read_bytes()
    assert b"1e-05" in root
    (store / "zarr.json").write_bytes(root.replace(b"1e-05", b"1e905"))
    assert any(fault.path == "zarr.json" for fault in verify(store).faults)
