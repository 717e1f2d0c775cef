"""How fast samples are read and written, as ratios to a plain copy of the same bytes in the same run.

    python benchmarks/store_io.py --samples 12 --folder /data/scratch

Full-size BEVFormer-Base samples of noise, in random order, from a warm page cache. All ways to read take
turns on every sample, so that whatever else the machine does falls on all of them alike. Megabytes are those
that a reader hands out, whatever lies on disk. Needs 0.4 GB a sample on disk, and as much free memory.
Writes benchmarks/results/store_io.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import zarr
from common import ROOT, markdown_table, publish
from tqdm import tqdm
from zarr.codecs import BloscCodec, Crc32cCodec

from cache_schema.codec import BLOSC_CNAME, BLOSC_LEVEL, blosc_shuffle, crc32c, raw_bytes
from cache_schema.inspection.planned_arrays import GROUPS, planned_arrays
from cache_schema.reader import TargetReader
from cache_schema.spec import FocalFacts, StoreSpec
from cache_schema.writer import StoreWriter

sys.path.insert(0, str(ROOT / "tests" / "test_cache_schema"))
from store_cases import small_spec

PROFILES = ("exact", "compact", "focal")
SCENE = "scene-0001"
# Of profile `focal`, what a crowded keyframe keeps: see docs/store-format.md.
KEPT_CELLS, KEPT_QUERIES = 0.066, 300
MEMMAP = "memmap copy"
CHECKSUMS = "CRC-32C over the memmap, no copy"
FRESH_MEMMAP = "memmap copy, first time"
TARGET = 0.8

Arrays = dict[str, np.ndarray]
Read = Callable[[int], Mapping[str, object]]


def full_size_spec(profile: str) -> StoreSpec:
    """BEVFormer-Base under one profile; only its arrays matter here."""
    config = ROOT / "configs" / "teacher" / "bevformer_base.py"
    return replace(
        small_spec(planned_arrays(config, GROUPS)),
        profile=profile,
        focal=FocalFacts(min_score=0.1, background_block=8, areas={}) if profile == "focal" else None,
    )


def noise(spec: StoreSpec) -> tuple[Arrays, dict[str, object]]:
    """One sample of the teacher's arrays, and what `SceneWriter.append` takes beside them."""
    rng = np.random.default_rng(0)
    values = {
        array.name: rng.standard_normal(array.shape, np.float32).astype(array.dtype) for array in spec.arrays
    }
    if spec.profile != "focal":
        return values, {}
    maps = {array.name: values[array.name] for array in spec.arrays if array.is_map}
    areas = {name: _areas((*array.shape[:-3], *array.shape[-2:]), rng) for name, array in maps.items()}
    return values, {"areas": areas, "confident": np.arange(values["query_logits"].shape[1]) < KEPT_QUERIES}


def _areas(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A mask of that shape with so many cells in rectangles, as instances leave them, and never one more."""
    mask = np.zeros(shape, bool)
    wanted = int(KEPT_CELLS * mask.size)
    height, width = (max(1, round(0.05 * length)) for length in shape[-2:])
    while mask.sum() + height * width <= wanted:
        y, x = rng.integers(shape[-2] - height + 1), rng.integers(shape[-1] - width + 1)
        camera = tuple(rng.integers(length) for length in shape[:-2])
        mask[(*camera, slice(y, y + height), slice(x, x + width))] = True
    return mask


def write_store(path: Path, spec: StoreSpec, values: Arrays, chosen: Mapping, n_samples: int) -> list[str]:
    """A store of one scene that holds the same sample n times; returns the tokens."""
    tokens = [f"token-{row}" for row in range(n_samples)]
    samples = [(token, 500_000 * row) for row, token in enumerate(tokens)]
    with StoreWriter.create(path, spec).scene(SCENE, "scene-token", samples) as scene:
        for token in tokens:
            scene.append(token, values, **chosen)
    return tokens


class MemmapCopy:
    """The same arrays, each from a flat file without index, compression and checksum: copies out of a map."""

    def __init__(self, folder: Path, sample: Arrays, n_samples: int, names: Sequence[str]) -> None:
        self._maps = {
            name: np.memmap(
                folder / f"{name}.bin", sample[name].dtype, "r", shape=(n_samples, *sample[name].shape)
            )
            for name in names
        }

    def __call__(self, row: int) -> Arrays:
        return {name: np.array(stored[row]) for name, stored in self._maps.items()}

    def checksums(self, row: int) -> dict[str, str]:
        """What testing them costs at the least: one pass over the bytes, and no copy."""
        return {name: crc32c(raw_bytes(stored[row])) for name, stored in self._maps.items()}


def write_contenders(folder: Path, sample: Arrays, n_samples: int) -> None:
    """The stored arrays as one flat file each, and as one torch file a sample."""
    for name, values in sample.items():
        with (folder / f"{name}.bin").open("wb") as file:
            for _ in range(n_samples):
                file.write(raw_bytes(values))
    tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
    for row in range(n_samples):
        torch.save(tensors, folder / f"{row}.pt")


def ways_to_read(
    folder: Path, tokens: Sequence[str], sample: Arrays, names: Sequence[str]
) -> dict[str, Callable[[], Read]]:
    """By name, what makes a function that reads the named arrays of the sample of a row."""

    def reader(verify_checksums: object) -> Read:
        store = TargetReader(folder / "store.zarr", verify_checksums=verify_checksums)
        return lambda row: store.read(tokens[row], names)

    def used_before(read: Read) -> Read:
        """Has read all samples once, so that every map has its pages."""
        for row in range(len(tokens)):
            read(row)
        return read

    return {
        MEMMAP: lambda: used_before(MemmapCopy(folder, sample, len(tokens), names)),
        CHECKSUMS: lambda: used_before(MemmapCopy(folder, sample, len(tokens), names).checksums),
        FRESH_MEMMAP: lambda: MemmapCopy(folder, sample, len(tokens), names),
        "TargetReader, first epoch": lambda: reader("first"),
        "TargetReader, later epochs": lambda: used_before(reader("first")),
        "TargetReader, verify_checksums=True": lambda: used_before(reader(True)),
        "TargetReader, verify_checksums=False": lambda: used_before(reader(False)),
        "torch.load": lambda: (
            lambda row: torch.load(folder / f"{row}.pt", weights_only=True, map_location="cpu")
        ),
    }


def timed_reads(
    ways: Mapping[str, Callable[[], Read]], n_samples: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of every read; entry i of every list is of the same sample at about the same time."""
    rng = np.random.default_rng(1)
    seconds = defaultdict(list)
    for _ in range(repeats):
        reads = {name: make() for name, make in ways.items()}  # anew: a first epoch is the first one
        for row in rng.permutation(n_samples).tolist():
            for name in rng.permutation(list(ways)).tolist():
                start = time.perf_counter()
                sample = reads[name](row)
                seconds[name].append(time.perf_counter() - start)
                del sample
    return seconds


def read_rows(profile: str, nbytes: int, seconds: Mapping[str, Sequence[float]]) -> Iterator[list[str]]:
    for name, taken in seconds.items():
        ratios = [plain / own for plain, own in zip(seconds[MEMMAP], taken, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        ratio = statistics.median(ratios)
        meant = name.endswith(("later epochs", "=False"))
        verdict = ("ok" if ratio >= TARGET else "**missed**") if meant else ""
        yield [
            profile,
            f"{nbytes / 1e6:.1f}",
            name,
            f"{nbytes / statistics.median(taken) / 1e6:,.0f}",
            f"{ratio:.2f}",
            f"{low:.2f}-{high:.2f}",
            verdict,
        ]


def _worker(make: Callable[[], Read], rows: Sequence[int], ready, results) -> None:
    read = make()
    for row in rows[:2]:
        read(row)
    ready.wait()
    start = time.perf_counter()
    for row in rows:
        read(row)
    results.put((start, time.perf_counter()))


def scaled(make: Callable[[], Read], n_workers: int, n_samples: int) -> float:
    """Samples a second of that many forked processes that read at once, each all samples in its own order."""
    fork = multiprocessing.get_context("fork")
    ready, results = fork.Barrier(n_workers), fork.Queue()
    workers = [
        fork.Process(
            target=_worker,
            args=(make, np.random.default_rng(i).permutation(n_samples).tolist(), ready, results),
        )
        for i in range(n_workers)
    ]
    for worker in workers:
        worker.start()
    times = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return n_workers * n_samples / (max(end for _, end in times) - min(start for start, _ in times))


def scaling_rows(
    profile: str, nbytes: int, ways: Mapping[str, Callable[[], Read]], n_samples: int, repeats: int
) -> Iterator[list[str]]:
    chosen = [MEMMAP, "TargetReader, later epochs", "TargetReader, verify_checksums=True"]
    counts = sorted({1, 2, os.cpu_count() or 1})
    speeds = defaultdict(list)
    for _ in range(repeats):
        for n_workers in counts:
            for name in chosen:
                speeds[name, n_workers].append(scaled(ways[name], n_workers, n_samples))
    for name in chosen:
        medians = [statistics.median(speeds[name, n]) for n in counts]
        for n_workers, median in zip(counts, medians, strict=True):
            pairs = zip(speeds[name, n_workers], speeds[MEMMAP, n_workers], strict=True)
            yield [
                profile,
                name,
                n_workers,
                f"{median * nbytes / 1e6:,.0f}",
                f"{median / medians[0]:.2f}",
                f"{statistics.median(own / plain for own, plain in pairs):.2f}",
            ]


def write_plain(path: Path, values: Arrays, n_samples: int) -> None:
    """A file an array, each synced, and nothing else."""
    path.mkdir()
    files = {name: (path / name).open("wb", buffering=0) for name in values}
    for _ in range(n_samples):
        for name, array in values.items():
            file, data = files[name], memoryview(raw_bytes(array))
            while data:
                data = data[file.write(data) :]
    for file in files.values():
        os.fsync(file.fileno())
        file.close()


def write_zarr(path: Path, spec: StoreSpec, stacked: Arrays) -> None:
    """The same chunks, shards and codecs, encoded by zarr-python, and synced."""
    group = zarr.create_group(path)
    for array in spec.arrays:
        blosc = BloscCodec(
            typesize=np.dtype(array.dtype).itemsize,
            cname=BLOSC_CNAME,
            clevel=BLOSC_LEVEL,
            shuffle=blosc_shuffle(array),
        )
        values = stacked[array.name]
        group.create_array(
            array.name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=(1, *array.shape),
            shards=values.shape,
            filters=None,
            compressors=(blosc, Crc32cCodec()) if array.compressed else (Crc32cCodec(),),
        )[:] = values
    for file in path.rglob("c/**/*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def write_rows(folder: Path, n_samples: int, repeats: int) -> list[list[str]]:
    """One scene of profile `exact`, written in three ways that take turns."""
    spec = full_size_spec("exact")
    values, _ = noise(spec)
    stacked = {name: np.stack([array] * n_samples) for name, array in values.items()}
    nbytes = sum(array.nbytes for array in stacked.values())
    ways = {
        "plain files, fsync": lambda path: write_plain(path, values, n_samples),
        "StoreWriter": lambda path: write_store(path, spec, values, {}, n_samples),
        "zarr-python": lambda path: write_zarr(path, spec, stacked),
    }
    seconds = defaultdict(list)
    for repeat in tqdm(range(repeats), desc="write", unit="round"):
        for name in list(ways) if repeat % 2 else reversed(ways):
            path = folder / "written"
            start = time.perf_counter()
            ways[name](path)
            seconds[name].append(time.perf_counter() - start)
            shutil.rmtree(path)
    plain = seconds["plain files, fsync"]
    rows = []
    for name in ways:
        ratios = [a / b for a, b in zip(plain, seconds[name], strict=True)]
        rows.append(
            [
                name,
                f"{nbytes / statistics.median(seconds[name]) / 1e6:,.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f}-{max(ratios):.2f}",
            ]
        )
    return rows


def opening_row(profile: str, store: Path, token: str) -> list[object]:
    """What the first read of a sample takes longer than the next one when nothing of its scene is open."""
    seconds = []
    for _ in range(20):
        reader = TargetReader(store, verify_checksums=False)
        reader.scene_of(token)
        start = time.perf_counter()
        reader.read(token)
        first = time.perf_counter() - start
        start = time.perf_counter()
        reader.read(token)
        seconds.append(first - (time.perf_counter() - start))
    return [profile, len(reader.spec.stored_arrays), f"{1e3 * statistics.median(seconds):.1f}"]


def measure_profile(
    profile: str, folder: Path, n_samples: int, repeats: int
) -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """Rows of the tables on reading, on scaling and on opening."""
    spec = full_size_spec(profile)
    tokens = write_store(folder / "store.zarr", spec, *noise(spec), n_samples)
    sample = TargetReader(folder / "store.zarr")[tokens[0]]
    write_contenders(folder, sample, n_samples)
    nbytes = sum(array.nbytes for array in sample.values())
    ways = ways_to_read(folder, tokens, sample, list(sample))
    reading = list(read_rows(profile, nbytes, timed_reads(ways, n_samples, repeats)))
    scaling = list(scaling_rows(profile, nbytes, ways, n_samples, max(3, repeats // 2)))
    return reading, scaling, [opening_row(profile, folder / "store.zarr", tokens[0])]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=12, metavar="N", help="of each profile (default 12)")
    parser.add_argument("--folder", type=Path, metavar="F", help="on the disk to measure (default: TMPDIR)")
    parser.add_argument("--repeats", type=int, default=5, help="passes over all samples (default 5)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    busy = f"{os.getloadavg()[0]:.1f} of {os.cpu_count()}"
    reading, scaling, opening = [], [], []
    for profile in PROFILES:
        print(f"reading, profile {profile} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            tables = measure_profile(profile, Path(folder), args.samples, args.repeats)
        reading += tables[0]
        scaling += tables[1]
        opening += tables[2]
    n_written = min(args.samples, 3)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        writing = write_rows(Path(folder), n_written, args.repeats)
    header = ["profile", "MB a sample", "read by", "MB/s", "of memmap", "quartiles"]
    body = [
        f"BEVFormer-Base at full size, noise; {args.samples} samples, {args.repeats} passes in random order,"
        " warm page cache. Medians; a ratio compares reads of one sample that follow each other. Load average"
        f" when it began, of cores: {busy}. With none to spare, the rows of several processes say little.",
        "## Reading, one process",
        markdown_table([*header, f"at least {TARGET}"], reading),
        "Nothing is compressed but the masks of `focal` (LZ4). The first epoch tests every checksum"
        ' (`verify_checksums="first"`, the default), later ones none. It cannot reach the target: a checksum'
        f" is a second pass over the bytes ({CHECKSUMS}), and files that were just mapped have page faults, a"
        f" plain map as well ({FRESH_MEMMAP}). Copying and testing in small blocks, to test what is still in"
        " the processor's cache, was tried and gained nothing.",
        "## Opening a scene",
        markdown_table(["profile", "arrays", "ms"], opening),
        "What the first read of a scene takes longer than the next one: the manifest, the index of every"
        " shard, and page faults. The reader keeps the last 256 shards and 16 manifests open.",
        "## Reading, several processes",
        markdown_table(["profile", "read by", "processes", "MB/s", "of one process", "of memmap"], scaling),
        f"## Writing a scene of {n_written} samples, profile `exact`",
        markdown_table(["written by", "MB/s", "of plain files", "smallest-largest"], writing),
        "Each ends with everything synced to disk. `StoreWriter` also looks for values that are not finite, "
        "and makes checksums.",
    ]
    publish("store_io", "How fast samples are read and written", "\n\n".join(body))
    return 0


if __name__ == "__main__":
    sys.exit(main())
