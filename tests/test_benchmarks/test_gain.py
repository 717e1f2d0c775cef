"""The gain benchmark: which records belong to which row, and what is computed from them."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import distillation_gain
import pytest
from distillation_gain import Training, chosen, parse, trainings
from gain_records import Estimate, Record, RecordInvalid, Records, digest_of, gain, step_table, table
from gain_rows import ALONE, CONFIGS, FD3D, STREAMED, TRAINED_HEAD, history_names, reference, rows, steps
from mmengine.config import Config

from demo.stages import BATCH_SIZE, schedule
from train.distillers.config import DistillerConfig
from train.engine.options import parsed_options

BY_NAME = {row.name: row for row in rows()}


def a_record(**changes: object) -> Record:
    facts = {
        "row": "alone",
        "horizon": "short",
        "seed": 0,
        "digest": "d",
        "nds": 0.1,
        "mean_ap": 0.05,
        "tp_errors": {"mATE": 0.9},
        "seconds": 100.0,
        "processor": "a CPU",
        "commit": "abc",
    }
    return Record(**{**facts, **changes})


def seeds(*scores: float, **changes: object) -> dict[int, Record]:
    """Records by seed, the mAP half of the NDS."""
    return {seed: a_record(seed=seed, nds=nds, mean_ap=nds / 2, **changes) for seed, nds in enumerate(scores)}


@pytest.fixture
def teacher(tmp_path) -> Path:
    file = tmp_path / "teacher.pth"
    file.write_bytes(b"weights")
    return file


@pytest.mark.parametrize(("samples", "scaled"), [(BATCH_SIZE, False), (2 * BATCH_SIZE, True)])
def test_how_the_rate_is_scaled_is_a_fact_where_it_is(samples, scaled):
    assert ("auto_scale_lr" in BY_NAME[FD3D].resolved(schedule(1, samples))) == scaled


def test_row_names_are_unique():
    assert len(BY_NAME) == len(rows())


def test_the_steps_and_the_reference_are_rows():
    assert {reference(), *(name for pair in steps() for name in pair)} <= set(BY_NAME)


def test_the_long_horizon_has_the_rows_whose_steps_are_claimed():
    claimed = {name for step in steps() for name in step}
    assert {ALONE, reference(), FD3D} <= claimed <= {row.name for row in rows() if row.long}


@pytest.mark.parametrize("row", STREAMED)
def test_streams_are_compared_at_equal_steps_and_at_equal_time(teacher, row):
    queue, stream, as_long = history_names(row)
    short = {training.row.name for training in trainings("short", teacher)}
    assert {queue, stream} <= short
    assert as_long not in short
    configs = {t.row.name: t.row.resolved(t.settings) for t in trainings("long", teacher)}
    epochs = {name: configs[name]["train_cfg"] for name in (row, queue, stream, as_long)}
    assert epochs[row] == epochs[queue] == epochs[stream]
    assert epochs[as_long]["val_interval"] == epochs[as_long]["max_epochs"] > epochs[stream]["max_epochs"]
    # But for the history they are the row itself.
    history = ("history", "queue_length", "segment_length", "single_frame_steps", "train_cfg")
    plain = {name: {k: v for k, v in configs[name].items() if k not in history} for name in epochs}
    assert plain[row] == plain[queue] == plain[stream] == plain[as_long]
    histories = [configs[name].get("history", "queue") for name in epochs]
    assert histories == ["queue", "queue", "stream", "stream"]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_overrides_survive_the_command_line_and_fit_the_config(row):
    assert parsed_options([f"{key}={value}" for key, value in row.overrides.items()]) == dict(row.overrides)
    resolved = row.resolved({"train_cfg.max_epochs": 3})
    assert resolved["train_cfg"]["max_epochs"] == 3
    assert ("distiller" in resolved) == (row.source is not None)


@pytest.mark.parametrize("row", [row for row in rows() if row.source is not None], ids=lambda row: row.name)
def test_every_distiller_can_be(row):
    DistillerConfig.from_config(Config(row.resolved({})))


def test_overrides_replace_the_terms_rather_than_add_to_them():
    assert set(BY_NAME["FD3D: focal alone"].resolved({})["distiller"]["terms"]) == {"focal"}
    without = BY_NAME["FD3D without focal"].resolved({})["distiller"]["terms"]
    shipped = BY_NAME[FD3D].resolved({})["distiller"]["terms"]
    assert without == {name: options for name, options in shipped.items() if name != "focal"}
    assert BY_NAME[reference()].resolved({})["distiller"]["terms"] == {}


def test_settings_and_weights_change_the_digest(teacher, tmp_path):
    training = Training(BY_NAME[FD3D], "short", teacher)
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    same = tmp_path / "same.pth"
    same.write_bytes(b"weights")
    reweighted = replace(training.row, overrides={"distiller.terms.focal.weight": 7.0})
    digests = [
        training.digest,
        Training(training.row, "long", teacher).digest,
        Training(training.row, "short", other).digest,
        Training(replace(training.row, source="compact"), "short", teacher).digest,
        Training(reweighted, "short", teacher).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert Training(training.row, "short", same).digest == training.digest
    assert Training(replace(training.row, name="renamed"), "short", teacher).digest == training.digest


def test_a_default_of_the_code_counts_as_if_it_were_written_down(teacher):
    row = BY_NAME["FD3D: focal alone"]
    weight = row.resolved({})["distiller"]["terms"]["focal"]["weight"]
    written = replace(row, overrides={**row.overrides, "distiller.terms.focal.weight": weight})
    assert Training(written, "short", teacher).digest == Training(row, "short", teacher).digest


def test_what_the_head_of_a_layer_learns_counts(teacher, monkeypatch):
    row = BY_NAME[TRAINED_HEAD]
    before = Training(row, "long", teacher).digest
    assert Training(BY_NAME[FD3D], "long", teacher).digest != before
    monkeypatch.setattr(type(row), "resolved_head", lambda self: {"model": "another"})
    assert Training(row, "long", teacher).digest != before


def test_the_student_alone_does_not_depend_on_the_teacher(teacher, tmp_path):
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    row = BY_NAME[ALONE]
    assert Training(row, "short", other).digest == Training(row, "short", teacher).digest


def test_how_often_is_logged_does_not_matter(teacher):
    row = BY_NAME[ALONE]
    assert row.resolved({"log_interval": 1, "checkpoint_interval": 7}) == row.resolved({})


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest_of({"a": 1, "b": (2, 3)}) == digest_of({"b": [2, 3], "a": 1})


def test_trainings_are_ordered_by_seed_so_that_a_stopped_run_compares_all_rows():
    args = parse(["--rows", ALONE, FD3D, "--seeds", "2"])
    order = [(training.horizon, training.row.name, seed) for training, seed in chosen(args)]
    assert order == [
        (horizon, name, seed) for horizon in ("short", "long") for seed in (0, 1) for name in (ALONE, FD3D)
    ]


def test_an_unknown_row_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        parse(["--rows", "FD4D"])
    message = capsys.readouterr().err
    assert "FD4D" in message
    assert "start only: released" in message


def test_records_are_kept_and_read(tmp_path):
    records = Records(tmp_path / "records.jsonl")
    assert records.read() == {}
    one, two = a_record(), a_record(seed=1)
    records.add(one)
    records.add(two)
    records.add(replace(one, nds=0.9))
    assert records.read() == {("d", 0): one, ("d", 1): two}
    assert len(records.path.read_text().splitlines()) == 2


def test_records_of_several_writers_are_all_kept_once(tmp_path):
    records = Records(tmp_path / "records.jsonl")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(records.add, [a_record(seed=n % 10) for n in range(40)]))
    lines = [json.loads(line) for line in records.path.read_text().splitlines()]
    assert sorted(line["seed"] for line in lines) == list(range(10))


@pytest.mark.parametrize("line", ['{"row": "alone"', '{"row": "alone"}'], ids=["cut off", "fields missing"])
def test_a_broken_line_is_named(tmp_path, line):
    records = Records(tmp_path / "records.jsonl")
    records.add(a_record())
    with records.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(RecordInvalid, match=r"records\.jsonl:2: no record"):
        records.read()


def test_mean_and_standard_error():
    found = Estimate.of([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert found.error == pytest.approx(0.1 / math.sqrt(3))
    assert str(found) == "0.2000 ± 0.0577"
    assert str(Estimate.of([0.25])) == "0.2500"


def test_gains_compare_equal_seeds_only():
    without, with_it = seeds(0.10, 0.30, 0.20), seeds(0.15, 0.33, 0.27)
    found, count = gain(with_it, without, "nds")
    # 0.05, 0.03, 0.07: the rows differ by much between seeds, the gain does not.
    assert count == 3
    assert found.mean == pytest.approx(0.05)
    assert found.error == pytest.approx(0.02 / math.sqrt(3))
    del without[2]
    found, count = gain(with_it, without, "nds")
    assert (count, found.mean) == (2, pytest.approx(0.04))
    assert gain(with_it, {7: a_record(seed=7)}, "nds") == (None, 0)


def test_the_table_of_rows():
    by_row = {
        "alone": seeds(0.1, 0.2),
        "start": seeds(0.2, 0.3),
        "all": seeds(0.3, 0.5, seconds=200.0),
        "not yet": {},
    }
    lines = table(by_row, baselines={"alone": "alone", "start": "start only"}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][4:] == [
        "NDS over alone",
        "mAP over alone",
        "NDS over start only",
        "mAP over start only",
        "seconds",
    ]
    assert cells[2] == [
        "alone", "2", "0.1500 ± 0.0500", "0.0750 ± 0.0250", "", "",
        "-0.1000 ± 0.0000", "-0.0500 ± 0.0000", "100",
    ]  # fmt: skip
    assert cells[4][:2] + cells[4][4:] == [
        "all", "2", "0.2500 ± 0.0500", "0.1250 ± 0.0250",
        "0.1500 ± 0.0500", "0.0750 ± 0.0250", "200",
    ]  # fmt: skip
    assert len(cells) == 5


def test_the_table_of_steps():
    by_row = {"alone": seeds(0.1, 0.2), "all": seeds(0.3, 0.5), "once": seeds(0.4)}
    lines = step_table(by_row, [("alone", "all"), ("alone", "once"), ("alone", "never")]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    # Gains 0.2 and 0.3: mean 0.25, standard error 0.05.
    assert cells[0] == ["alone", "all", "2", "0.2500 ± 0.0500", "+5.0", "0.1250 ± 0.0250", "+5.0"]
    assert cells[1] == ["alone", "once", "1", "0.3000", "", "0.1500", ""]
    assert len(cells) == 2


def test_the_report_leaves_records_of_other_settings_out(teacher, tmp_path, monkeypatch, capsys):
    records = Records(tmp_path / "records.jsonl")
    monkeypatch.setattr(distillation_gain, "RECORDS", records)
    written = {}
    monkeypatch.setattr(distillation_gain, "publish", lambda name, title, body: written.update({name: body}))
    digests = {t.row.name: t.digest for t in trainings("short", teacher)}
    records.add(a_record(digest=digests[ALONE], nds=0.111))
    records.add(a_record(row=FD3D, digest=digests[FD3D], nds=0.222))
    records.add(a_record(row=FD3D, digest="of other weights", nds=0.999))
    assert distillation_gain.main(["--report", "--teacher", str(teacher)]) == 0
    body = written["distillation_gain"]
    assert "0.1110" in body
    assert "0.2220" in body
    assert "0.9990" not in body
    assert "other settings, left out: 1." in body


def test_a_missing_teacher_is_named(tmp_path, capsys):
    assert distillation_gain.main(["--report", "--teacher", str(tmp_path / "none.pth")]) == 2
    assert "none.pth cannot be read" in capsys.readouterr().err


def test_the_configs_are_there():
    named = {row.config for row in rows()} | {row.head for row in rows() if row.head is not None}
    assert named <= {file.name for file in CONFIGS.glob("*.py")}
