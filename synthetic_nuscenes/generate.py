"""Writing a synthetic dataset: all of it, under a temporary name until it is whole."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TextIO

import cv2
from tqdm import tqdm

from camera3d.errors import ConfigInvalid, shown
from synthetic_nuscenes.can_messages import pose_messages
from synthetic_nuscenes.frames import KeyframeFacts, write_keyframe
from synthetic_nuscenes.ground import drivable
from synthetic_nuscenes.options import OPTIONS_FILE, VERSION, SyntheticOptions, scene_name
from synthetic_nuscenes.rig import CAMERAS, LIDAR_NAME
from synthetic_nuscenes.scenes import make_world
from synthetic_nuscenes.tables import Tables, map_name

FRAMES_A_TASK = 5
ORPHAN_S = 0.5  # how long a worker lives on when its parent was killed, at most


def generate(
    out: str | Path,
    *,
    scenes: int = 20,
    seconds: float = 10.0,
    image_hw: tuple[int, int] = (900, 1600),
    seed: int = 0,
    processes: int | None = None,
    val_share: float = 0.2,
    density: float = 1.0,
    coco: bool = False,
) -> Path:
    """Write a dataset in nuScenes' format and return its dataroot.

    Args:
        out: the dataroot to make; may exist when it is empty, or when it already holds this very dataset,
            which is then left alone.
        processes: how many render; by default one a core. The result does not depend on it.
        scenes, seconds, image_hw, seed, val_share, density, coco: see `SyntheticOptions`.

    The version is VERSION, the splits are TRAIN_SPLIT and VAL_SPLIT. Raises ConfigInvalid for options that
    cannot work, a folder that holds something else, or when another process is writing the same dataset.
    """
    out = Path(out).absolute()
    options = SyntheticOptions(
        scenes=scenes,
        seconds=float(seconds),
        image_hw=tuple(image_hw),
        seed=seed,
        val_share=val_share,
        density=density,
        coco=coco,
    )
    processes = len(os.sched_getaffinity(0)) if processes is None else processes
    if processes < 1:
        raise ConfigInvalid(f"processes is {processes}: give 1 or more")
    if _there_already(out, options):
        return out
    with _partial_folder(out) as partial:
        if _there_already(out, options):  # another process finished it just now
            return out
        _write(partial, options, processes)
        (partial / OPTIONS_FILE).write_text(json.dumps(options.to_dict(), indent=1) + "\n")
        partial.rename(out)
    return out


def _there_already(out: Path, options: SyntheticOptions) -> bool:
    """Whether `out` is the whole dataset; False when there is nothing. Raises ConfigInvalid otherwise."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        found = SyntheticOptions.from_dict(json.loads((out / OPTIONS_FILE).read_text()))
    except (OSError, ValueError, TypeError, ConfigInvalid) as error:
        raise ConfigInvalid(
            f"{out} is not empty and holds no synthetic dataset of this version ({error}). Give a new"
            " folder, or remove that one."
        ) from error
    differences = options.differences(found)
    if differences:
        raise ConfigInvalid(
            f"{out} holds a synthetic dataset made with other options:\n{shown(differences)}\nGive a new"
            " folder, remove that one, or ask for the options it was made with."
        )
    sys.stderr.write(f"{out}: holds this dataset already, left as it is\n")
    return True


@contextlib.contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, ours alone; gone afterwards unless it was renamed.

    What a killed run left is thrown away: the lock on the file beside it dies with its processes.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial"
    lock_path = out.parent / f".{out.name}.lock"
    with lock_path.open("w") as lock:
        if not _locked(lock, lock_path):
            raise ConfigInvalid(
                f"another process is writing {out} (it holds {lock_path}). Wait for it, or give another"
                " folder."
            )
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            lock_path.unlink(missing_ok=True)


def _locked(lock: TextIO, path: Path) -> bool:
    """Take the lock; waits as long as the workers of a killed run may live on."""
    until = time.monotonic() + 4 * ORPHAN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed the file in between: then this lock keeps nobody out.
            return os.fstat(lock.fileno()).st_ino == path.stat().st_ino
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(ORPHAN_S / 10)


def _write(root: Path, options: SyntheticOptions, processes: int) -> None:
    for channel in (*CAMERAS, LIDAR_NAME):
        (root / "samples" / channel).mkdir(parents=True)
    for folder in (VERSION, "maps", "can_bus"):
        (root / folder).mkdir()
    tables, facts = [Tables(options)], []
    if options.coco:
        # Only when it is asked for: the devkit behind it takes longer to import than a few scenes to draw.
        from synthetic_nuscenes.coco import CocoTables, annotations_name

        tables.append(CocoTables(options))
    total = options.scenes * options.keyframes
    with tqdm(total=total, desc="synthetic keyframes", unit="frame", file=sys.stderr) as bar:
        for several in _rendered(root, options, processes):
            facts += several
            bar.update(len(several))
            if len(facts) == options.keyframes:
                _finish_scene(root, options, tables, facts)
                facts = []
    for name, records in tables[0].records.items():
        _write_json(root / VERSION / f"{name}.json", records)
    _write_json(root / VERSION / "splits.json", tables[0].splits())
    for split, contents in tables[1].splits().items() if options.coco else ():
        path = root / annotations_name(split)
        path.parent.mkdir(exist_ok=True)
        _write_json(path, contents)


def _rendered(root: Path, options: SyntheticOptions, processes: int) -> Iterator[list[KeyframeFacts]]:
    """The facts of all keyframes in order, a few at a time."""
    # Every process that draws a part of a scene makes the whole world first: parts only where there are fewer
    # scenes than would keep all of them busy.
    length = options.keyframes if options.scenes >= 4 * processes else FRAMES_A_TASK
    tasks = [
        (root, options, scene, first, min(first + length, options.keyframes))
        for scene in range(options.scenes)
        for first in range(0, options.keyframes, length)
    ]
    processes = min(processes, len(tasks))
    if processes == 1:
        with _one_thread():
            yield from map(_render, tasks)
        return
    # Forked: started afresh, each would first import the devkit, which takes longer than a small dataset. The
    # children touch numpy and OpenCV only, on one thread, so no thread that stayed behind is waited for.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(
        processes, mp_context=context, initializer=_end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        yield from pool.map(_render, tasks)


def _end_with_parent(parent: int) -> None:
    """A worker whose parent was killed would wait for tasks for ever, and hold the lock that it inherited."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(ORPHAN_S / 2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _render(task: tuple[Path, SyntheticOptions, int, int, int]) -> list[KeyframeFacts]:
    root, options, scene, first, stop = task
    with _one_thread():
        return [write_keyframe(root, options, scene, number) for number in range(first, stop)]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """OpenCV on one thread: the processes share the cores already."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _finish_scene(root: Path, options: SyntheticOptions, tables: list, facts: list[KeyframeFacts]) -> None:
    scene = facts[0].scene
    world = make_world(options, scene)
    for table in tables:
        table.add_scene(scene, world, facts)
    encoded = cv2.imencode(".png", drivable(world))[1]
    (root / map_name(scene)).write_bytes(encoded.tobytes())
    messages = pose_messages(world, scene, options.seconds)
    _write_json(root / "can_bus" / f"{scene_name(scene)}_pose.json", messages)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=0) + "\n")
