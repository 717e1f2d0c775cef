"""A second dump of everything notices the first one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cache_schema.files import STAGING_PREFIX
from extract.sharding import Shard
from extract.sharing import RECENT_S, StoreInUse, one_dump_at_a_time

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from extract.sharding import Shard
from extract.sharing import one_dump_at_a_time
with one_dump_at_a_time(Path(sys.argv[1]), Shard.parse(sys.argv[2]), chosen=sys.argv[3] == "chosen"):
    print("held", flush=True)
    sys.stdin.read()
"""
WHOLE, HALF = ("1/1", "all"), ("1/2", "chosen")


@pytest.fixture
def first(tmp_path):
    """A function: start a process that dumps a part, and wait until it is at work."""
    started = []

    def start(part: tuple[str, str]) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "a.zarr"), *part]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def enter(store: Path, part: str = "1/1", *, chosen: bool = False) -> None:
    with one_dump_at_a_time(store, Shard.parse(part), chosen=chosen):
        pass


@pytest.mark.parametrize("part", [WHOLE, HALF])
def test_the_second_dump_of_everything_is_told_how_to_share(first, tmp_path, part):
    process = first(part)
    with pytest.raises(
        StoreInUse, match=r"another process of this machine is dumping .*--shard 2/2.*torchrun"
    ):
        enter(tmp_path / "a.zarr")
    enter(tmp_path / "b.zarr")
    enter(tmp_path / "a.zarr", "2/2", chosen=True)
    enter(tmp_path / "a.zarr", "1/1", chosen=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    enter(tmp_path / "a.zarr")


def test_another_machine_at_work_is_noticed(tmp_path):
    scene = tmp_path / "a.zarr" / f"{STAGING_PREFIX}scene-0001-{'0' * 8}-{'1' * 8}" / "bev_feats"
    scene.mkdir(parents=True)
    (scene / "shard").write_bytes(b"half")
    with pytest.raises(StoreInUse, match="another machine"):
        enter(tmp_path / "a.zarr")
    enter(tmp_path / "a.zarr", "2/2", chosen=True)
    long_ago = scene.stat().st_mtime - RECENT_S - 60
    for path in (scene / "shard", scene, scene.parent):
        os.utime(path, (long_ago, long_ago))
    enter(tmp_path / "a.zarr")
