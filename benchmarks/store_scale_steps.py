"""The steps of store_scale.py, each in a process that imports the reader and nothing else.

python benchmarks/store_scale_steps.py open|read|share STORE TOKENS.json
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from pathlib import Path

from cache_schema.reader import TargetReader

WORKERS = 2


def memory_mb() -> dict[str, float]:
    """Resident memory of this process, what of it is its own, and the most it ever was."""
    own = {"Rss": 0.0, "Private": 0.0}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        for kind in own:
            if line.startswith(kind) and "Hugetlb" not in line:
                own[kind] += int(line.split()[1]) / 1e3
    status = Path("/proc/self/status").read_text()
    return own | {"peak": int(status.split("VmHWM:")[1].split()[0]) / 1e3}


def open_store(path: Path, tokens: list[str]) -> dict[str, float]:
    """A fresh process: the time until the first sample can be asked for, and the memory then."""
    before = memory_mb()
    start, computing = time.perf_counter(), time.process_time()
    reader = TargetReader(path)
    assert len(reader)
    found = {"open": time.perf_counter() - start, "computing": time.process_time() - computing}
    return found | {f"{kind} MB": mb for kind, mb in memory_mb().items()} | {"before MB": before["Rss"]}


def read_samples(path: Path, tokens: list[str]) -> dict[str, float]:
    """Samples a second, in random order."""
    reader = TargetReader(path)
    assert len(reader)
    start = time.perf_counter()
    computing = time.process_time()
    for token in tokens:
        reader[token]
    found = {
        "rate": len(tokens) / (time.perf_counter() - start),
        "ms a sample": 1e3 * (time.process_time() - computing) / len(tokens),
    }
    computing = time.process_time()
    for token in tokens:
        reader.scene_of(token)
    return found | {"look-up": (time.process_time() - computing) / len(tokens)}


def share(path: Path, tokens: list[str]) -> dict[str, float]:
    """Memory of its own that a forked worker has after reading."""
    reader = TargetReader(path)
    assert len(reader)
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        halves = [(reader, tokens[number::WORKERS]) for number in range(WORKERS)]
        return {"worker MB": max(pool.starmap(_worker, halves))}


def _worker(reader: TargetReader, tokens: list[str]) -> float:
    for token in tokens:
        reader[token]
    return memory_mb()["Private"]


if __name__ == "__main__":
    step = {"open": open_store, "read": read_samples, "share": share}[sys.argv[1]]
    print(json.dumps(step(Path(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))))
