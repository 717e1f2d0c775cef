"""Chaos in short: nothing lost, silent or touched; and its own harness sees what crashes and hangs."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import chaos
import chaos_stores
import pytest
from chaos_trials import BAD, CRASHED, HARMLESS, HUNG, NOTICED, OUTSIDE, SILENT, outcomes

COUNTS = {"faults": 30, "documents": 12, "kills": 7, "bucket": 11}


def test_chaos(tmp_path, capsys):
    records = tmp_path / "records.jsonl"
    given = ["--records", str(records), "--seed", "7"]
    counts = [word for family, n in COUNTS.items() for word in (f"--{family}", str(n))]
    assert chaos.main([*given, "--documents", "9"]) == 0
    assert chaos.main([*given, *counts]) == 0, "it goes on where it was"
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [(line["first"], line["n"]) for line in lines if line["family"] == "documents"] == [(0, 9), (9, 3)]
    seen, tried = Counter(), Counter()
    for line in lines:
        tried[line["family"]] += line["n"]
        for key, n in line["counts"].items():
            seen[key.rpartition(": ")[2]] += n
    assert tried == COUNTS
    assert seen.total() == sum(COUNTS.values())
    assert not set(seen) & set(BAD)
    assert "| faults    | **all** " in capsys.readouterr().out


class Toy:
    """Does what its kind says."""

    limit_s = 10.0

    def __init__(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []

    def kind(self, number, rng):
        return ("fine", "raises", "dies", "hangs", "hoards")[number % 5]

    def trial(self, kind, rng):
        if kind == "raises":
            raise KeyError(kind)
        if kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hangs":
            time.sleep(60)
        if kind == "hoards":
            bytes(bytearray(1 << 20) * 250)
        return HARMLESS, ""


def test_what_crashes_and_hangs_is_seen(tmp_path):
    found = list(outcomes(Toy, tmp_path, "0", range(6)))
    assert [one.number for one in found] == list(range(6))
    assert [one.outcome for one in found] == [HARMLESS, CRASHED, CRASHED, HUNG, CRASHED, HARMLESS]
    assert "KeyError: 'raises'" in found[1].detail


@pytest.fixture
def world(tmp_path):
    return chaos_stores.World(tmp_path, "exact")


def test_a_reader_that_tests_nothing_is_silent(world, monkeypatch):
    (path,) = world.store.glob("scenes/scene-0001/bev_feats/c.*")
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    assert world.verdict()[0] == NOTICED
    monkeypatch.setattr(chaos_stores, "everything", lambda path: {"other": b"values"})
    assert world.verdict()[0] == SILENT
    world.restore()
    assert chaos_stores.contents(world.store) == world.pristine


def test_what_is_touched_beside_the_store_is_seen(world):
    (world.outside / "mine" / "cat.png").unlink()
    assert world.verdict()[0] == OUTSIDE
    assert (world.outside / "mine" / "cat.png").exists(), "it is put back for the trials that follow"
    assert world.verdict()[0] == HARMLESS
