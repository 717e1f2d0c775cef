"""How fast a store is read from a cold page cache, beside other ways to keep and to read the same numbers.

    python benchmarks/cold_reads.py --samples 16 --folder /data/scratch

Full-size BEVFormer-Base samples of noise. Before every measurement the kernel is told to drop what it keeps
of the files (posix_fadvise), and is asked afterwards whether it did (mincore). Workers share the samples out
and read theirs in random order, as data workers do. Every way takes its turn in every round. Needs 0.7 GB a
sample on disk. Writes benchmarks/results/cold_reads.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import zarr
from common import markdown_table, publish
from store_io import SCENE, full_size_spec, noise, write_store
from tqdm import tqdm

from cache_schema.reader import TargetReader

PLAIN = "plain copy of the store's files"
FIRST, LATER = "TargetReader, first epoch (tests checksums)", "TargetReader, no checksums"
TARGET = 0.8

Read = Callable[[int], object]


def drop(folder: Path) -> None:
    """Make the kernel forget every file below a folder."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def kept(folder: Path) -> float:
    """The share of the bytes below a folder that is in the page cache, by mincore."""
    import ctypes
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    inside = total = 0
    for path in folder.rglob("*"):
        if not path.is_file() or not path.stat().st_size:
            continue
        with path.open("rb") as file:
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            pages = -(-len(view) // mmap.PAGESIZE)
            found = (ctypes.c_ubyte * pages)()
            address = ctypes.addressof(ctypes.c_char.from_buffer(view))
            if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(view)), found) == 0:
                inside += sum(page & 1 for page in found)
            total += pages
    return inside / max(total, 1)


def plain_copy(folder: Path, n_samples: int) -> Read:
    """Reads a sample's share of all shard files, one after the other, each into memory of its own."""
    files = sorted(path for path in folder.rglob("c/**/*") if path.is_file())
    files += sorted(path for path in folder.rglob("c.*") if path.is_file())

    def read(row: int) -> None:
        for path in files:
            size = path.stat().st_size
            start, stop = size * row // n_samples, size * (row + 1) // n_samples
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                left = memoryview(np.empty(stop - start, np.uint8))
                while left:
                    left = left[file.readinto(left) :]

    return read


def ways(folder: Path, tokens: Sequence[str], names: Sequence[str]) -> dict[str, Callable[[], Read]]:
    """By name, what makes a function that reads a sample by its number."""
    store = folder / "store"
    scene = store / "scenes" / SCENE

    def reader(verify: object) -> Read:
        opened = TargetReader(store, verify_checksums=verify)
        return lambda row: opened.read(tokens[row], names)

    def by_zarr() -> Read:
        group = zarr.open_group(scene, mode="r")
        arrays = [group[name] for name in names]
        return lambda row: [array[row] for array in arrays]

    def by_tensorstore() -> Read:
        import tensorstore

        opened = [
            tensorstore.open(
                {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(scene / name)}}, read=True
            ).result()
            for name in names
        ]
        return lambda row: [wanted.result() for wanted in [array[row].read() for array in opened]]

    return {
        PLAIN: lambda: plain_copy(store, len(tokens)),
        LATER: lambda: reader(False),
        FIRST: lambda: reader("first"),
        "zarr-python": by_zarr,
        "TensorStore": by_tensorstore,
        ".npy files in float32": lambda: (
            lambda row: [np.load(folder / "npy" / f"{row}-{name}.npy") for name in names]
        ),
        "torch.load": lambda: (
            lambda row: torch.load(folder / "torch" / f"{row}.pt", weights_only=True, map_location="cpu")
        ),
    }


def write_others(folder: Path, sample: Mapping[str, np.ndarray], n_samples: int) -> None:
    """The same numbers as people keep them today: a float32 file an array, or a torch file a sample."""
    (folder / "npy").mkdir()
    (folder / "torch").mkdir()
    tensors = {name: torch.from_numpy(values) for name, values in sample.items()}
    for row in range(n_samples):
        for name, values in sample.items():
            floats = values.astype(np.float32) if values.dtype.kind == "f" else values
            np.save(folder / "npy" / f"{row}-{name}.npy", floats)
        torch.save(tensors, folder / "torch" / f"{row}.pt")


def _worker(make: Callable[[], Read], rows: Sequence[int], ready, results) -> None:
    torch.set_num_threads(1)
    read = make()
    ready.wait()
    start = time.perf_counter()
    for row in rows:
        read(row)
    results.put((start, time.perf_counter()))


def seconds_of(make: Callable[[], Read], n_workers: int, n_samples: int, seed: int) -> float:
    """From the first worker's start to the last one's end; each sample is read once."""
    fork = multiprocessing.get_context("fork")
    ready, results = fork.Barrier(n_workers), fork.Queue()
    order = np.random.default_rng(seed).permutation(n_samples)
    shares = [order[i::n_workers].tolist() for i in range(n_workers)]
    workers = [fork.Process(target=_worker, args=(make, share, ready, results)) for share in shares]
    for worker in workers:
        worker.start()
    times = [results.get(timeout=600) for _ in workers]
    for worker in workers:
        worker.join()
    return max(end for _, end in times) - min(start for start, _ in times)


def rows_of(
    profile: str, nbytes: int, taken: Mapping[tuple[str, int], Sequence[float]], n_samples: int
) -> Iterator[list[object]]:
    for (name, n_workers), seconds in taken.items():
        ratios = [plain / own for plain, own in zip(taken[PLAIN, n_workers], seconds, strict=True)]
        rate = statistics.median(nbytes * n_samples / one / 1e6 for one in seconds)
        ratio = statistics.median(ratios)
        verdict = ("ok" if ratio >= TARGET else "**missed**") if name == FIRST else ""
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        yield [profile, name, n_workers, f"{rate:,.0f}", f"{ratio:.2f}", spread, verdict]


def measure(
    profile: str, folder: Path, n_samples: int, counts: Sequence[int], repeats: int
) -> tuple[list[list[object]], float]:
    """Rows of a profile, and the largest share that was still in the page cache before a measurement."""
    spec = full_size_spec(profile)
    tokens = write_store(folder / "store", spec, *noise(spec), n_samples)
    sample = TargetReader(folder / "store")[tokens[0]]
    write_others(folder, sample, n_samples)
    chosen = ways(folder, tokens, list(sample))
    if profile == "focal":  # ragged arrays are of another shape to a reader without our code
        chosen = {name: make for name, make in chosen.items() if name not in ("zarr-python", "TensorStore")}
    taken: dict[tuple[str, int], list[float]] = defaultdict(list)
    warm = 0.0
    rounds = [(repeat, n, name) for repeat in range(repeats) for n in counts for name in chosen]
    for repeat, n_workers, name in tqdm(rounds, desc=profile, unit="pass"):
        drop(folder)
        warm = max(warm, kept(folder))
        taken[name, n_workers].append(seconds_of(chosen[name], n_workers, n_samples, repeat))
    nbytes = sum(values.nbytes for values in sample.values())
    return list(rows_of(profile, nbytes, taken, n_samples)), warm


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=16, metavar="N", help="of each profile (default 16)")
    parser.add_argument("--folder", type=Path, metavar="F", help="on the disk to measure (default: TMPDIR)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default 3)")
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8],
        metavar="N",
        help="processes (default 1 2 4 8)",
    )
    parser.add_argument("--profiles", nargs="+", default=["exact", "compact", "focal"], metavar="P")
    args = parser.parse_args(argv)
    busy = f"{os.getloadavg()[0]:.1f} of {os.cpu_count()}"
    rows, warmest = [], 0.0
    for profile in args.profiles:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            found, warm = measure(profile, Path(folder), args.samples, args.workers, args.repeats)
        rows += found
        warmest = max(warmest, warm)
    header = ["profile", "read", "processes", "MB/s", "of plain", "smallest-largest", f"at least {TARGET}"]
    body = [
        f"BEVFormer-Base at full size, noise; {args.samples} samples a profile, each read once a round by one"
        f" of the processes, {args.repeats} rounds; medians. MB/s are of what the store holds of a sample:"
        " float32 files hold twice the bytes for the same numbers. Plain: the store's own files, copied by as"
        f" many processes into fresh memory. Dropped before every pass; at most {warmest:.1%} of the pages"
        f" were still there. Load average when it began, of cores: {busy}.",
        markdown_table(header, rows),
        "A virtual machine's host may keep what its guest forgets: the plain row says what this disk gives.",
    ]
    publish("cold_reads", "How fast a store is read cold", "\n\n".join(body))
    return 0


if __name__ == "__main__":
    sys.exit(main())
