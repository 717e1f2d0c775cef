"""How long does the index of all of trainval take, once the devkit has its tables?

    python benchmarks/nuscenes_index.py

The tables are fabricated in memory at trainval's size and put into a real NuScenes object of the devkit,
whose own reverse index is made as always; only its reading of the JSON files is left out, and the sweeps
between keyframes, which the index never touches. One process. Writes benchmarks/results/nuscenes_index.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pickle
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from nuscenes import NuScenes

from camera3d.data import CAMERA_NAMES, NuScenesIndex
from camera3d.data.nuscenes_reader import index_tables

CATEGORIES = ("vehicle.car", "human.pedestrian.adult", "movable_object.barrier", "vehicle.truck", "animal")
CHANNELS = ("LIDAR_TOP", *CAMERA_NAMES)
LIMIT_S = 60.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=850)
    parser.add_argument("--keyframes", type=int, default=34_149)
    parser.add_argument("--annotations", type=int, default=1_166_187)
    results = Path(__file__).parent / "results" / "nuscenes_index.md"
    parser.add_argument("--out", type=Path, default=results, help="where the table goes")
    options = parser.parse_args(argv)

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        nusc = fabricate(Path(folder), options.scenes, options.keyframes, options.annotations)
        rows, index_s = measure(nusc, Path(folder))
    table = report(options, rows, load)
    print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(table + "\n")
    return 0 if index_s < LIMIT_S else 1


def measure(nusc: NuScenes, folder: Path) -> tuple[list[tuple[str, str]], float]:
    """Build, keep, read back; rows of the table and the seconds of the build."""
    start = time.perf_counter()
    index = index_tables(nusc, "everything")
    index_s = time.perf_counter() - start
    path = folder / "index.npz"
    start = time.perf_counter()
    index.save(path)
    write_s = time.perf_counter() - start
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    start = time.perf_counter()
    NuScenesIndex.load(path)
    read_s = time.perf_counter() - start
    held = sum(array.nbytes for array in index.columns.values())
    start = time.perf_counter()
    for row in range(min(2000, len(index))):
        index.frame(row)
    frame_us = (time.perf_counter() - start) / min(2000, len(index)) * 1e6
    start = time.perf_counter()
    sent = len(pickle.dumps(index))
    sent_s = time.perf_counter() - start
    return [
        ("keyframes / annotations kept", f"{len(index):,} / {len(index.columns['gt_boxes']):,}"),
        ("index build (limit 60 s)", f"{index_s:.1f} s"),
        ("writing the file", f"{write_s:.1f} s, {path.stat().st_size / 1e6:.0f} MB"),
        ("reading the file (a later run, instead of the devkit)", f"{read_s:.1f} s"),
        ("one Frame from the index", f"{frame_us:.0f} µs"),
        ("arrays of the index, shared by forked workers", f"{held / 1e6:.0f} MB"),
        ("what a spawned worker is sent", f"{sent / 1e6:.0f} MB in {sent_s:.2f} s"),
        ("peak memory of the process, devkit tables included", f"{peak_bytes / 1e9:.1f} GB"),
    ], index_s


def fabricate(folder: Path, scenes: int, keyframes: int, annotations: int) -> NuScenes:
    """A NuScenes object of the devkit over made-up tables of the given size."""
    rng = np.random.default_rng(0)
    nusc = NuScenes.__new__(NuScenes)
    nusc.version, nusc.dataroot, nusc.verbose = "v1.0-trainval", str(folder), False
    names = [f"scene-{number:04d}" for number in range(1, scenes + 1)]
    (folder / nusc.version).mkdir()
    (folder / nusc.version / "splits.json").write_text(json.dumps({"everything": names}))
    tables = {
        "category": [{"token": f"c{i}", "name": name} for i, name in enumerate(CATEGORIES)],
        "attribute": [],
        "visibility": [],
        "sensor": [{"token": f"s-{c}", "channel": c, "modality": _modality(c)} for c in CHANNELS],
        "log": [{"token": "log"}],
        "map": [{"token": "map", "log_tokens": ["log"], "filename": ""}],
    }
    counts = np.full(scenes, keyframes // scenes)
    counts[: keyframes % scenes] += 1
    _drive(tables, names, counts, rng)
    _annotate(tables, counts, annotations, rng)
    nusc.table_names = list(tables)
    for name, records in tables.items():
        setattr(nusc, name, records)
    nusc.__make_reverse_index__(False)
    return nusc


def _modality(channel: str) -> str:
    return "lidar" if channel == "LIDAR_TOP" else "camera"


def _token(kind: int, number: int) -> str:
    return f"{kind:02x}{number:030x}"


def _drive(tables: dict, names: list[str], counts: np.ndarray, rng: np.random.Generator) -> None:
    """Scenes, keyframes, and a pose and a sample_data record for each of the seven sensors."""
    intrinsic = [
        [1266.417203046554, 0.0, 816.2670197447984],
        [0.0, 1266.417203046554, 491.5],
        [0.0, 0.0, 1.0],
    ]
    for table in ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor"):
        tables[table] = []
    poses = rng.normal(size=(int(counts.sum()) * len(CHANNELS), 7))
    sample = data = 0
    for number, (name, count) in enumerate(zip(names, counts.tolist(), strict=True)):
        calibrated = [_token(5, number * len(CHANNELS) + i) for i in range(len(CHANNELS))]
        for token, channel in zip(calibrated, CHANNELS, strict=True):
            rotation, translation = rng.normal(size=4).tolist(), rng.normal(size=3).tolist()
            record = {"token": token, "sensor_token": f"s-{channel}", "rotation": rotation}
            matrix = [] if channel == "LIDAR_TOP" else intrinsic
            tables["calibrated_sensor"].append(
                {**record, "translation": translation, "camera_intrinsic": matrix}
            )
        ends = {"first_sample_token": _token(2, sample), "last_sample_token": _token(2, sample + count - 1)}
        scene = {"token": _token(1, number), "name": name, "log_token": "log", "nbr_samples": count}
        tables["scene"].append(scene | ends)
        for i in range(count):
            stamp = 1_532_402_927_647_951 + number * 60_000_000 + i * 500_000
            tables["sample"].append(
                {
                    "token": _token(2, sample),
                    "timestamp": stamp,
                    "scene_token": scene["token"],
                    "prev": _token(2, sample - 1) if i else "",
                    "next": _token(2, sample + 1) if i + 1 < count else "",
                }
            )
            for channel, calibration in zip(CHANNELS, calibrated, strict=True):
                row = poses[data].tolist()
                tables["ego_pose"].append(
                    {
                        "token": _token(4, data),
                        "timestamp": stamp,
                        "rotation": row[:4],
                        "translation": row[4:],
                    }
                )
                log = f"n015-2018-07-24-11-22-45+0800__{channel}__{stamp + data % 50_000}"
                tables["sample_data"].append(
                    {
                        "token": _token(3, data),
                        "sample_token": _token(2, sample),
                        "ego_pose_token": _token(4, data),
                        "calibrated_sensor_token": calibration,
                        "timestamp": stamp,
                        "is_key_frame": True,
                        "height": 900,
                        "width": 1600,
                        "filename": f"samples/{channel}/{log}.jpg",
                    }
                )
                data += 1
            sample += 1


def _annotate(tables: dict, counts: np.ndarray, annotations: int, rng: np.random.Generator) -> None:
    """Tracks as long as their scenes, as many a scene as it takes to reach the number of annotations."""
    tables["sample_annotation"], tables["instance"] = [], []
    numbers = rng.normal(size=(annotations, 10))
    points = rng.integers(0, 20, annotations).tolist()
    share = annotations / int(counts.sum())
    first, made = 0, 0
    for count in counts.tolist():
        due = round((first + count) * share) - made
        for start in range(0, due, count):
            length, instance = min(count, due - start), len(tables["instance"])
            tables["instance"].append(
                {"token": _token(7, instance), "category_token": f"c{instance % len(CATEGORIES)}"}
            )
            for i in range(length):
                row = numbers[made].tolist()
                tables["sample_annotation"].append(
                    {
                        "token": _token(6, made),
                        "sample_token": _token(2, first + i),
                        "instance_token": _token(7, instance),
                        "visibility_token": "",
                        "attribute_tokens": [],
                        "translation": row[:3],
                        "size": row[3:6],
                        "rotation": row[6:],
                        "prev": _token(6, made - 1) if i else "",
                        "next": _token(6, made + 1) if i + 1 < length else "",
                        "num_lidar_pts": points[made],
                        "num_radar_pts": 0,
                    }
                )
                made += 1
        first += count


def report(options: argparse.Namespace, rows: list[tuple[str, str]], load: float) -> str:
    """The table as Markdown, with hardware, date, commit and how busy the machine was before."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.processor() or platform.machine(),
    )
    lines = [
        "# The index of nuScenes trainval",
        "",
        f"{datetime.date.today().isoformat()}, {cpu}, {len(_processors())} cores, load"
        f" {load:.1f} before the start, one process, Python {platform.python_version()}, commit"
        f" {commit.stdout.strip() or 'none yet'}.",
        f"Fabricated tables in a real devkit object: {options.scenes:,} scenes, {options.keyframes:,}"
        f" keyframes, {options.annotations:,} annotations, a fifth of them of a category without a class.",
        "",
        "| what | measured |",
        "|---|---|",
        *(f"| {what} | {value} |" for what, value in rows),
        "",
        "Again with: `python benchmarks/nuscenes_index.py`",
    ]
    return "\n".join(lines)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def _processors() -> list[str]:
    return [line for line in _cpuinfo() if line.startswith("processor")]


if __name__ == "__main__":
    sys.exit(main())
