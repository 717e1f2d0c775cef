"""A writer dies at any step that touches the disk: nothing wrong is readable, and the next run heals it."""

import itertools
import os
import signal
from pathlib import Path

import numpy as np
from store_cases import SMALL_ARRAYS, sample_list, sample_values, small_spec

from cache_schema import files
from cache_schema.errors import AlreadyPublished, StoreNotFound
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter

PLANNED = {"scene-0001": 2, "scene-0002": 1}
HEAD = {"a.weight": np.ones((2, 2), np.float32)}
STEPS = ("mkdir", "rename", "link", "fsync", "rmdir", "unlink")


def write_all(path):
    """What a dump does to a store, whatever is there already."""
    arrays = SMALL_ARRAYS[-1:]
    try:
        writer = StoreWriter.create(path, small_spec(arrays), planned=PLANNED)
    except AlreadyPublished:
        writer = StoreWriter.open(path)
    writer.remove_abandoned()
    writer.write_teacher_head(HEAD)
    for name in writer.missing_scenes():
        samples = sample_list(name, PLANNED[name])
        with writer.scene(name, f"{name}-token", samples) as scene:
            for token, _ in samples:
                scene.append(token, sample_values(token, arrays))
    writer.seal()


def dies_at(path, step, write=write_all):
    """Run `write` in a process that kills itself before its disk operation number `step`.

    Returns whether it died; it does not when there are fewer operations.
    """
    pid = os.fork()
    if pid == 0:
        count = itertools.count()
        for name in STEPS:
            operation = getattr(os, name)

            def counted(*args, operation=operation, **kwargs):
                if next(count) == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*args, **kwargs)

            setattr(os, name, counted)
        try:
            write(path)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL


def contents(path):
    return {str(f.relative_to(path)): f.read_bytes() for f in Path(path).rglob("*") if f.is_file()}


def test_every_crash(tmp_path):
    write_all(tmp_path / "peace.zarr")
    peace = contents(tmp_path / "peace.zarr")
    for step in itertools.count():
        path = tmp_path / f"{step}.zarr"
        if not dies_at(path, step):
            break
        try:
            reader = TargetReader(path)
        except StoreNotFound:
            pass
        else:
            for token in reader.sample_tokens:
                np.testing.assert_array_equal(
                    reader[token]["can_bus"], sample_values(token, SMALL_ARRAYS[-1:])["can_bus"]
                )
            if StoreWriter.open(path).sealed:
                assert len(reader) == 3
        # The second run dies as well, at another step, before the third may finish.
        dies_at(path, step // 2)
        write_all(path)
        assert contents(path) == peace, f"step {step}"
        assert not [name for name in os.listdir(path) if name.startswith(files.STAGING_PREFIX)]
    assert step > 40
