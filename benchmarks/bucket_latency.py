"""How long a sample takes from a bucket whose every answer comes 50 ms late, and in how many round trips.

    python benchmarks/bucket_latency.py

The arrays of BEVFormer-Base, their number and names, with a few values each: what is measured are requests
and what they cost, not bytes. Every step is taken by a new reader in a new process, in which the client of
the bucket has been used before. Needs boto3. Writes benchmarks/results/bucket_latency.md.
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
from dataclasses import replace
from pathlib import Path

from common import ROOT, markdown_table, publish
from delaying_server import BUCKET, DelayingServer, round_trips

from cache_schema.array_spec import DETECTION
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter

sys.path.insert(0, str(ROOT / "tests" / "test_cache_schema"))
from store_io import full_size_spec, noise

PROFILES = ("exact", "focal")
SCENES, SAMPLES = 3, 3
LARGEST = 8  # of any dimension
TARGET_S = 0.3
STEPS = ("open", "list the samples", "first sample", "next sample", "first sample of another scene")
# Measured by this script before requests ran side by side, on the machine of the first table.
BEFORE = ""


def small(profile: str) -> object:
    """The spec of BEVFormer-Base with no dimension longer than LARGEST, but for detections."""
    spec = full_size_spec(profile)
    arrays = [
        array
        if array.role == DETECTION
        else replace(array, shape=tuple(min(LARGEST, length) for length in array.shape))
        for array in spec.arrays
    ]
    return replace(spec, arrays=tuple(arrays))


def write(path: Path, profile: str) -> None:
    """A sealed store of the same sample over and over."""
    spec = small(profile)
    values, chosen = noise(spec)
    names = [f"scene-{number:04}" for number in range(SCENES)]
    writer = StoreWriter.create(path, spec, planned=dict.fromkeys(names, SAMPLES))
    for name in names:
        samples = [(f"{name}-{row}", 500_000 * row) for row in range(SAMPLES)]
        with writer.scene(name, f"{name}-token", samples) as scene:
            for token, _ in samples:
                scene.append(token, values, **chosen)
    writer.seal()


def _steps(url: str, results) -> None:
    """Seconds and the moments of each step."""
    TargetReader(url)  # imports, the client, a connection
    taken = []

    def step(work):
        begun = time.monotonic()
        value = work()
        taken.append((begun, time.monotonic()))
        return value

    reader = step(lambda: TargetReader(url))
    step(lambda: len(reader))
    for token in ("scene-0000-0", "scene-0000-2", "scene-0001-1"):
        step(lambda token=token: reader[token])
    results.put(taken)


def measure(folder: Path, profile: str, delay_s: float, repeats: int) -> list[list[str]]:
    """Rows of the table."""
    write(folder / profile, profile)
    seconds, counts, trips = defaultdict(list), defaultdict(list), defaultdict(list)
    fork = multiprocessing.get_context("fork")
    with DelayingServer(folder, delay_s) as server:
        os.environ |= {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for _ in range(repeats):
            results = fork.Queue()
            process = fork.Process(target=_steps, args=(f"s3://{BUCKET}/{profile}", results))
            process.start()
            taken = results.get(timeout=300)
            process.join()
            requests = server.requests()
            for name, (begun, ended) in zip(STEPS, taken, strict=True):
                own = [entry for entry in requests if begun <= entry[0] <= ended]
                seconds[name].append(ended - begun)
                counts[name].append(len(own))
                trips[name].append(round_trips(own))
    rows = []
    for name in STEPS:
        verdict = "" if "sample" not in name or "list" in name else "ok"
        middle = statistics.median(seconds[name])
        rows.append(
            [
                profile,
                name,
                f"{statistics.median(counts[name]):.0f}",
                f"{statistics.median(trips[name]):.0f}",
                f"{middle:.2f}",
                f"{min(seconds[name]):.2f}-{max(seconds[name]):.2f}",
                verdict and (verdict if middle <= TARGET_S else "**missed**"),
            ]
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--delay", type=float, default=0.05, metavar="S", help="of each answer (default 0.05)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="new readers (default 5)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for p in PROFILES for row in measure(Path(folder), p, args.delay, args.repeats)]
    columns = ("profile", "step", "requests", "round trips", "s (median)", "s (range)", f"≤ {TARGET_S} s")
    body = (
        f"Each answer comes {1e3 * args.delay:.0f} ms late; the medians of {args.repeats} new readers. A "
        "round trip is a request that was sent when the one before it had been answered.\n\n"
        f"{markdown_table(columns, rows)}\n{BEFORE}"
    )
    publish("bucket_latency", "A sample from a slow bucket", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
