"""How fast this checkout writes and reads stores, beside another checkout of the project, in one run.

    git worktree add ../before COMMIT
    python benchmarks/store_before.py ../before --samples 8 --rounds 15

Each checkout writes full-size BEVFormer-Base samples of noise with its own code and reads them back; the two
take turns, so that whatever else the machine does falls on both alike. Arrays that only one of them keeps are
written and not read. Warm page cache. Needs 0.3 GB a sample on disk. Writes
benchmarks/results/store_before.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from common import ROOT, markdown_table, publish
from tqdm import tqdm

PROFILES = ("exact", "compact", "focal")
STEPS = ("write a scene, synced", "read, checksums tested", "read, not tested")
ALLOWED = 1.03


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--samples", type=int, default=8, help="of a scene (default 8)")
    parser.add_argument("--rounds", type=int, default=15, help="default 15")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: TMPDIR)")
    parser.add_argument("--serve", metavar="PROFILE", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.serve:
        serve(args.serve, args.folder, args.samples)
        return 0
    busy = f"{os.getloadavg()[0]:.1f} of {os.cpu_count()}"
    rows = [row for profile in PROFILES for row in compared(profile, args)]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=args.before, text=True, capture_output=True, check=True
    ).stdout.strip()
    header = [
        "profile",
        "step",
        "MB/s then",
        "MB/s now",
        "time now of then",
        "quartiles",
        f"at most {ALLOWED}",
    ]
    body = [
        f"Then is commit {commit}. BEVFormer-Base at full size, noise; {args.samples} samples a scene,"
        f" {args.rounds} rounds in which both take turns; medians, and quartiles of the ratios of a round."
        f" Load average when it began, of cores: {busy}. More than {ALLOWED} counts only where the lower"
        " quartile is above it too.",
        markdown_table(header, rows),
    ]
    publish("store_before", "Stores then and now", "\n\n".join(body))
    return 0


def compared(profile: str, args: argparse.Namespace) -> list[list[str]]:
    """A row a step."""
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        checkouts = {
            name: Checkout(tree.resolve(), profile, Path(folder) / name, args.samples)
            for name, tree in (("then", args.before), ("now", ROOT))
        }
        common = sorted(set.intersection(*(set(checkout.ask("names")) for checkout in checkouts.values())))
        # The same but for a few cells that are drawn by chance.
        megabytes = {name: checkout.ask("choose", common) / 1e6 for name, checkout in checkouts.items()}
        for step in STEPS:  # which warms both up
            for checkout in checkouts.values():
                checkout.ask(step)
        for turn in tqdm(range(args.rounds), desc=profile, unit="round"):
            order = sorted(checkouts, reverse=bool(turn % 2))
            for step in STEPS:
                for name in order:
                    taken[name, step].append(checkouts[name].ask(step) / megabytes[name])
        for checkout in checkouts.values():
            checkout.close()
    return [row(profile, step, taken["then", step], taken["now", step]) for step in STEPS]


def row(profile: str, step: str, then: Sequence[float], now: Sequence[float]) -> list[str]:
    """Medians of the seconds a megabyte, and what the ratios of the rounds say."""
    ratios = [new / old for new, old in zip(now, then, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    verdict = "ok" if middle <= ALLOWED else "undecided" if low <= ALLOWED else "**slower**"
    rates = [f"{1 / statistics.median(seconds):,.0f}" for seconds in (then, now)]
    return [profile, step, *rates, f"{middle:.2f}", f"{low:.2f}-{high:.2f}", verdict]


class Checkout:
    """A process that runs one checkout's code, and waits for what to do."""

    def __init__(self, tree: Path, profile: str, folder: Path, n_samples: int) -> None:
        folder.mkdir()
        paths = os.pathsep.join((str(tree), str(tree / "benchmarks")))
        self._process = subprocess.Popen(
            [
                # -P: what this file imports comes from the other checkout too.
                *(sys.executable, "-P", __file__, ".", "--serve", profile),
                *("--folder", str(folder), "--samples", str(n_samples)),
            ],
            env=os.environ | {"PYTHONPATH": paths},
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *message: object) -> object:
        """What it answers."""
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self._process.args} ended")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self._process.stdin.close()
        self._process.wait()


def serve(profile: str, folder: Path, n_samples: int) -> None:
    """In the other process: do what standard input says, with the code that PYTHONPATH names."""
    from store_io import full_size_spec, noise, write_store

    from cache_schema.reader import TargetReader

    spec = full_size_spec(profile)
    values, chosen = noise(spec)
    store = folder / "store"
    tokens = write_store(store, spec, values, chosen, n_samples)
    order = np.random.default_rng(0).permutation(n_samples)
    written = 0

    def write() -> None:
        nonlocal written
        written += 1
        write_store(folder / f"written-{written}", spec, values, chosen, n_samples)

    readers = {test: TargetReader(store, verify_checksums=test) for test in (True, False)}
    names: list[str] = []

    def read(test: bool) -> None:
        for at in order:
            readers[test].read(tokens[at], names)

    steps = dict(zip(STEPS, (write, partial(read, True), partial(read, False)), strict=True))
    for line in sys.stdin:
        what, *rest = json.loads(line)
        answer: object
        if what == "names":
            answer = list(readers[True][tokens[0]])
        elif what == "choose":
            (names,) = rest
            answer = n_samples * sum(a.nbytes for a in readers[True].read(tokens[0], names).values())
        else:
            start = time.perf_counter()
            steps[what]()
            answer = time.perf_counter() - start
        print(json.dumps(answer), flush=True)
        for path in folder.glob("written-*"):
            shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(main())
