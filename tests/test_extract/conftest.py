"""Dumps of a tiny teacher over tiny scenes; and the shared cases, made importable."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test_cache_schema")]

from object_store import proxy, server_port, url  # noqa: E402, F401


@pytest.fixture(scope="session")
def dataroot(tiny_nuscenes):
    """Six scenes of two to four frames, the split "tiny"."""
    from dump_cases import SCENES

    return tiny_nuscenes(scenes=SCENES, image_hw=(64, 96), splits={"tiny": list(SCENES)})


@pytest.fixture(scope="session")
def run_dump(dataroot):
    """`run_dump(store, *options)`: the command in this process; returns its exit code."""
    from dump_cases import TEACHER

    from extract.dump_teacher import main

    def run(store, *options, weights=("--untrained",), threads=("--threads", "1"), data=dataroot):
        split = ("--version", "v1.0-mini", "--split", "tiny")
        where = ("--dataroot", str(data), "--out", str(store), "--workers", "0")
        return main([str(TEACHER), *split, *where, *weights, *threads, *options])

    return run


@pytest.fixture(scope="session")
def peace(run_dump, tmp_path_factory):
    """The store that one process writes in peace."""
    store = tmp_path_factory.mktemp("peace") / "teacher.zarr"
    assert run_dump(store) == 0
    return store
