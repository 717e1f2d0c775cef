"""Does anything notice when one byte of a store changes?

    python benchmarks/corruption.py --flips 500

Writes small stores, flips single bytes at random over all their files, one at a time, and runs `verify` after
each. Writes benchmarks/results/corruption.md; exits 1 when a flip went unnoticed.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "test_cache_schema"))

from corruption_cases import (  # noqa: E402  it lies beside the test that does the same in short
    DETECTED,
    HARMLESS,
    MISSED,
    REFUSED,
    file_kind,
    outcomes,
    profile_store,
    random_flips,
)

from cache_schema.profiles import PROFILES  # noqa: E402

OUTCOMES = (DETECTED, REFUSED, HARMLESS, MISSED)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    results = Path(__file__).parent / "results" / "corruption.md"
    parser.add_argument("--out", type=Path, default=results, help="where the table goes")
    options = parser.parse_args(argv)

    counts: Counter[tuple[str, str]] = Counter()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, tqdm(total=options.flips, desc="flip") as bar:
        scenes = {"scene-0001": 3, "scene-0002": 2}
        stores = [profile_store(Path(folder) / f"{name}.zarr", name, scenes) for name in PROFILES]
        for number, store in enumerate(stores):
            share = options.flips // len(stores) + (number < options.flips % len(stores))
            for flip, outcome in outcomes(store, random_flips(store, share, options.seed)):
                counts[file_kind(store, flip.path), outcome] += 1
                bar.update()
    table = report(options, counts, time.perf_counter() - start)
    print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(table + "\n")
    return 1 if any(outcome == MISSED for _, outcome in counts) else 0


def report(options: argparse.Namespace, counts: Counter[tuple[str, str]], seconds: float) -> str:
    """The table as Markdown, with hardware, date and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    kinds = sorted({kind for kind, _ in counts})
    rows = [
        f"| {kind} | " + " | ".join(str(counts[kind, outcome]) for outcome in OUTCOMES) + " |"
        for kind in kinds
    ]
    totals = [str(sum(counts[kind, outcome] for kind in kinds)) for outcome in OUTCOMES]
    return "\n".join(
        [
            "# One flipped byte",
            "",
            f"{datetime.date.today().isoformat()}, {processor()}, one process, Python"
            f" {platform.python_version()}, commit {commit or 'none yet'}, {seconds:.0f} s.",
            f"{options.flips} random single-byte changes (seed {options.seed}), one at a time, over the"
            " files of small sealed stores of every profile.",
            "",
            "| file | " + " | ".join(OUTCOMES) + " |",
            "|---|" + "---:|" * len(OUTCOMES),
            *rows,
            f"| **all** | {' | '.join(totals)} |",
            "",
            f"Again with: `python benchmarks/corruption.py --flips {options.flips}`",
        ]
    )


def processor() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
