"""The shipped teacher's report: the curve and the hours out of a training's log."""

from __future__ import annotations

import json

import pytest
from demo_teacher import ERRORS, curve_of, curve_table, hours_of, plot, scalars

ERROR_VALUES = dict.fromkeys(ERRORS, 0.5)


def write_log(work_dir, start: str, entries: list[dict]) -> None:
    folder = work_dir / start / "vis_data"
    folder.mkdir(parents=True)
    (folder / "scalars.json").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def test_a_training_that_was_stopped_is_one_curve(tmp_path):
    write_log(
        tmp_path,
        "20260101_000000",
        [
            {"loss": 9.0, "time": 2.0, "step": 50},
            {"loss": 8.0, "time": 4.0, "step": 100},
            {"NDS": 0.1, "mAP": 0.05, **ERROR_VALUES, "step": 2},
            {"loss": 7.0, "time": 9.0, "step": 150},
        ],
    )
    # It went on from step 100.
    write_log(
        tmp_path,
        "20260101_010000",
        [
            {"loss": 7.0, "time": 1.0, "step": 150},
            {"NDS": 0.2, "mAP": 0.15, **ERROR_VALUES, "step": 4},
        ],
    )
    logged = scalars(tmp_path)
    curve = curve_of(logged)
    assert {epoch: entry["NDS"] for epoch, entry in curve.items()} == {2: 0.1, 4: 0.2}
    assert hours_of(logged) == pytest.approx((50 * 2.0 + 50 * 4.0 + 50 * 1.0) / 3600)
    first = [cell.strip() for cell in curve_table(curve).splitlines()[2].strip("|").split("|")]
    assert first == ["2", "0.100", "0.050", *["0.500"] * 5]
    plot(curve, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0
