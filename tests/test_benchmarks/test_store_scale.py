"""The stores of store_scale.py, of which most scenes are not there, open and give out samples that are."""

import pytest
import store_scale

from cache_schema.errors import Corrupt
from cache_schema.reader import TargetReader


def test_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(store_scale, "OPENS", 1)
    ((scenes, samples, *_),) = store_scale.measure(tmp_path, [30], n_reads=2, repeats=1)
    assert (scenes, samples) == ("30", "1,200")
    reader = TargetReader(tmp_path / "30.zarr")
    assert len(reader) == 1200
    there = {path.name for path in (tmp_path / "30.zarr" / "scenes").iterdir()}
    absent = next(name for name in reader.scenes if name not in there)
    with pytest.raises(Corrupt, match=f"scene {absent} of .* is missing"):
        reader[reader.scenes[absent][0]]
