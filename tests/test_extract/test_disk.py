"""Full and forbidden disks, and killed workers, stop a dump with a path, a number of bytes and a way on."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
from logging import FileHandler

import pytest
from dump_cases import SCENES, contents, temporary
from mmengine.logging import MMLogger

from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter
from extract import engine


@pytest.fixture
def mount(tmp_path):
    """`mount(options)` mounts, or mounts again, a file system in memory; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def run(*command):
        return subprocess.run(command, capture_output=True, text=True, check=False)

    if run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)).returncode:
        pytest.skip("cannot mount a tmpfs here")

    def again(options):
        done = run("mount", "-o", f"remount,{options}", str(folder))
        assert done.returncode == 0, done.stderr
        return folder

    yield again
    # Lazily: a reader keeps its memory maps until it is collected.
    assert run("umount", "--lazy", str(folder)).returncode == 0


def test_full_disk(mount, peace, run_dump, capsys):
    pages = sum(-(-len(data) // 4096) for data in contents(peace).values())
    n_kilobytes = int(0.9 * 4 * pages)
    store = mount(f"size={n_kilobytes}k") / "teacher.zarr"
    assert run_dump(store) == 2
    err = capsys.readouterr().err
    writer = StoreWriter.open(store)
    n_missing = sum(SCENES[name] for name in writer.missing_scenes())
    assert 0 < n_missing < sum(SCENES.values())
    assert f"NotWritable: No space left on device: {store}/" in err
    assert f"({n_missing * writer.spec.bytes_per_sample:,} bytes) at most" in err
    assert "Make room" in err
    assert "Resume with:  python extract/dump_teacher.py" in err
    assert "Traceback" not in err
    assert temporary(store) == []
    for token in TargetReader(store).sample_tokens:
        TargetReader(store).read(token)
    mount("size=64m")
    assert run_dump(store) == 0
    assert contents(store) == contents(peace)


def test_read_only_disk(mount, run_dump, capsys):
    store = mount("ro") / "teacher.zarr"
    assert run_dump(store) == 2
    err = capsys.readouterr().err
    assert f"Read-only file system: {store}" in err
    assert "Make it writable" in err


def test_file_size_limit(peace, run_dump, tmp_path, capsys):
    """A limit that any user can set, and that fails inside a write as a full disk does."""
    # The log file that a training in this process left open is no part of a dump, and longer than that.
    logger = MMLogger.get_current_instance()
    for left_open in [handler for handler in logger.handlers if isinstance(handler, FileHandler)]:
        logger.removeHandler(left_open)
        left_open.close()
    store = tmp_path / "teacher.zarr"
    largest = max(len(data) for name, data in contents(peace).items() if name.startswith("scenes/"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, limits[1]))
    try:
        assert run_dump(store) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert f"NotWritable: File too large: {store}/.writing-" in capsys.readouterr().err
    assert temporary(store) == []
    assert run_dump(store) == 0
    assert contents(store) == contents(peace)


def test_forbidden_folder(run_dump, tmp_path, monkeypatch, capsys):
    """Root may write everywhere, so the refusal is made up."""

    def forbidden(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.mkdir", forbidden)
        assert run_dump(tmp_path / "teacher.zarr") == 2
    err = capsys.readouterr().err
    assert f"NotWritable: Permission denied: {tmp_path / 'teacher.zarr'}" in err
    assert f"({sum(SCENES.values())}" not in err
    assert "Resume with:" in err


def test_a_killed_worker(peace, run_dump, tmp_path, monkeypatch, capsys):
    store = tmp_path / "teacher.zarr"
    original, scenes = engine.run_scene, []

    def killing(*args):
        scenes.append(1)
        if len(scenes) == 3:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "run_scene", killing)
        assert run_dump(store, "--workers", "1") == 2
    err = capsys.readouterr().err
    assert "DataWorkerDied: a process that reads data (pid " in err
    assert "Resume with:  python extract/dump_teacher.py" in err
    assert "Traceback" not in err
    assert temporary(store) == []
    assert run_dump(store) == 0
    assert contents(store) == contents(peace)
