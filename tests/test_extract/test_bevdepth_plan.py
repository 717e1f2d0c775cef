"""What docs/bevdepth.md says that a store takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from extract.store_spec import planned_arrays

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("config", "says"),
    [("bevdepth_r50", "18.6 MB"), ("bevdepth_r50_2key", "21.2 MB"), ("bevdepth_r101_512x1408", "37.0 MB")],
)
def test_bytes_of_a_sample(config, says):
    arrays = planned_arrays(ROOT / "configs/teacher" / f"{config}.py", ("bev", "pv", "queries"))
    assert f"{sum(array.bytes_per_sample for array in arrays) / 1e6:.1f} MB" == says
    assert says in (ROOT / "docs/bevdepth.md").read_text()
