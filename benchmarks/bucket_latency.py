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
COUNTING_DELAY_S = 1.5  # so long that all requests of a round are sent before the first is answered
STEPS = ("open", "list the samples", "first sample", "next sample", "first sample of another scene")
# Measured by this script on the same machine, at a load average of 7, when requests ran one after another.
BEFORE = """## Before: requests one after another

At commit 299e8b6.

| profile | step                          | requests | round trips | s, least | s, median |
| ------- | ----------------------------- | -------- | ----------- | -------- | --------- |
| exact   | open                          | 2        | 2           | 0.11     | 0.12      |
| exact   | list the samples              | 3        | 3           | 0.16     | 0.17      |
| exact   | first sample                  | 69       | 69          | 3.87     | 3.96      |
| exact   | next sample                   | 17       | 17          | 0.95     | 1.00      |
| exact   | first sample of another scene | 69       | 69          | 3.97     | 3.98      |
| focal   | open                          | 2        | 2           | 0.11     | 0.13      |
| focal   | list the samples              | 3        | 3           | 0.19     | 0.19      |
| focal   | first sample                  | 153      | 153         | 8.94     | 9.14      |
| focal   | next sample                   | 38       | 38          | 2.24     | 2.29      |
| focal   | first sample of another scene | 153      | 153         | 8.92     | 9.14      |"""


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
    """Begin, end and computing of each step, in seconds."""
    TargetReader(url)  # imports, the client, a connection
    taken = []

    def step(work):
        begun, computing = time.monotonic(), time.process_time()
        value = work()
        taken.append((begun, time.monotonic(), time.process_time() - computing))
        return value

    reader = step(lambda: TargetReader(url))
    step(lambda: len(reader))
    for token in ("scene-0000-0", "scene-0000-2", "scene-0001-1"):
        step(lambda token=token: reader[token])
    results.put(taken)


def measure(folder: Path, profile: str, delay_s: float, repeats: int) -> list[list[str]]:
    """Rows of the table."""
    write(folder / profile, profile)
    seconds, computing = defaultdict(list), defaultdict(list)
    counts, trips = {}, {}
    for delay, times in ((COUNTING_DELAY_S, 1), (delay_s, repeats)):
        with DelayingServer(folder, delay) as server:
            for _ in range(times):
                taken = _measured(server, profile)
                requests = server.requests()
                for name, (begun, ended, computed) in zip(STEPS, taken, strict=True):
                    if delay == delay_s:
                        seconds[name].append(ended - begun)
                        computing[name].append(computed)
                    else:
                        own = [entry for entry in requests if begun <= entry[0] <= ended]
                        counts[name], trips[name] = len(own), round_trips(own)
    return [
        [
            profile,
            name,
            counts[name],
            trips[name],
            f"{statistics.median(computing[name]):.3f}",
            f"{min(seconds[name]):.2f}",
            f"{statistics.median(seconds[name]):.2f}",
            "" if name not in STEPS[2:] else "ok" if min(seconds[name]) <= TARGET_S else "**missed**",
        ]
        for name in STEPS
    ]


def _measured(server: DelayingServer, profile: str) -> list[tuple[float, float, float]]:
    """What `_steps` finds in a process of its own."""
    os.environ |= {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    process = fork.Process(target=_steps, args=(f"s3://{BUCKET}/{profile}", results))
    process.start()
    taken = results.get(timeout=300)
    process.join()
    return taken


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
    columns = (
        "profile",
        "step",
        "requests",
        "round trips",
        "computing, s",
        "s, least",
        "s, median",
        f"≤ {TARGET_S} s",
    )
    body = (
        f"Each answer comes {1e3 * args.delay:.0f} ms late; {args.repeats} new readers, load average "
        f"{os.getloadavg()[0]:.0f} on {os.cpu_count()} cores: the least time is the one that other work "
        "disturbed least. A round trip is a request that was sent when the one before it had been answered, "
        f"counted with answers {COUNTING_DELAY_S} s late.\n\n{markdown_table(columns, rows)}\n\n{BEFORE}"
    )
    publish("bucket_latency", "A sample from a slow bucket", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
