"""Is anything lost, silently wrong or touched that is not ours, whatever happens to a store?

Kills processes, damages, swaps and links files, forges documents, lets a bucket lie; then asks who noticed.

Example:
    python benchmarks/chaos.py --kills 1000 --faults 10000 --documents 1000 --bucket 500 \\
        --runs 100
    python benchmarks/chaos.py --minutes 2

Every batch leaves a line in benchmarks/results/chaos.jsonl. The same command goes on where it was; with
--minutes it stops after that time. The table goes to benchmarks/results/chaos.md. Ends with 1 when there was
an outcome that must never be, and prints each of them with the numbers that repeat it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import RESULTS, commit, markdown_table, publish
from tqdm import tqdm

RECORDS = RESULTS / "chaos.jsonl"
FAMILIES = {
    "kills": "kill -9 of processes that write, repair and upload a store",
    "runs": "dumps and trainings, the commands themselves, killed or met by NaN, damage and full disks",
    "faults": "damaged, swapped, linked and rolled-back files",
    "documents": "hostile documents",
    "bucket": "requests that fail or are answered with lies",
}
BATCH = 100
MEMORY = "/dev/shm"
# Trials of each family for a run that is bounded by its time alone.
ENDLESS = 1_000_000
MEANINGS = """\
noticed: refused by the reader, or named by `verify`.
no effect: nothing that is read changed.
healed: dumped again, or repaired and dumped again, to the very bytes of before.
silent: other values were given out, or `verify` found nothing in a store that cannot be read.
lost: what was published was gone or half there.
crashed: an error that is none of the store's, a dead process, or more than 200 MB."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, help="stop after so many, and a batch")
    parser.add_argument("--seed", type=int, default=0)
    for name, what in FAMILIES.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"{what}: how many in all starts")
    parser.add_argument(
        "--only", metavar="FAMILY:N,N…", help="repeat these trials, and say what came of each; no record"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help=f"trials in a record (default {BATCH})")
    parser.add_argument("--records", type=Path, default=RECORDS, help="where the lines go")
    parser.add_argument(
        "--workspace",
        default=MEMORY if os.access(MEMORY, os.W_OK) else None,
        help="folder for the stores (default: a file system in memory, where there is one)",
    )
    args = parser.parse_args(argv)
    wanted = {name: getattr(args, name) or 0 for name in FAMILIES}
    if args.only:
        return repeat(args)
    if not any(wanted.values()):
        if args.minutes is None:
            parser.error("give --minutes, or how many of --kills, --faults, --documents and --bucket")
        wanted = dict.fromkeys(FAMILIES, ENDLESS)
    run(args, wanted)
    records = [record for record in read_records(args.records) if record["seed"] == args.seed]
    title, body = "Chaos", report(records, args.seed)
    if args.records == RECORDS:
        publish("chaos", title, body)
    else:
        print(body)
    return 1 if any(record["bad"] for record in records) else 0


def repeat(args: argparse.Namespace) -> int:
    """The trials of --only; 1 when one of them is bad."""
    from chaos_trials import BAD

    family, _, numbers = args.only.partition(":")
    found = list(trials(family, args, [int(number) for number in numbers.split(",")]))
    for one in found:
        print(
            f"{family}:{one.number}  {one.kind}: {one.outcome}",
            *([one.detail] if one.detail else []),
            sep="\n",
        )
    return 1 if any(one.outcome in BAD for one in found) else 0


def run(args: argparse.Namespace, wanted: dict[str, int]) -> None:
    """Batches of all families in turn, until all is done or the time is over."""
    until = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    done = Counter()
    for record in read_records(args.records):
        if record["seed"] == args.seed:
            done[record["family"]] += record["n"]
    args.records.parent.mkdir(parents=True, exist_ok=True)
    total = sum(n for n in wanted.values() if n < ENDLESS)
    with tqdm(total=total or None, initial=sum(done.values()) if total else 0, unit="trial") as bar:
        while left := [name for name in FAMILIES if done[name] < wanted[name]]:
            for name in left:
                if until is not None and time.monotonic() > until:
                    return
                bar.set_postfix_str(name)
                numbers = range(done[name], min(done[name] + args.batch, wanted[name]))
                record = batch(name, args, numbers, bar)
                with args.records.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                done[name] += record["n"]


def batch(name: str, args: argparse.Namespace, numbers: range, bar: tqdm) -> dict[str, object]:
    """The record of some trials of a family."""
    from chaos_trials import BAD

    began, counts, bad = time.monotonic(), Counter(), []
    for outcome in trials(name, args, numbers):
        counts[f"{outcome.kind}: {outcome.outcome}"] += 1
        bar.update()
        if outcome.outcome in BAD:
            bad.append(vars(outcome))
            repeat = f"--seed {args.seed} --only {name}:{outcome.number}"
            print(f"{outcome.outcome}: {outcome.kind} ({repeat})\n{outcome.detail}", file=sys.stderr)
    return {
        "family": name,
        "seed": args.seed,
        "first": numbers.start,
        "n": len(numbers),
        "counts": dict(sorted(counts.items())),
        "bad": bad,
        "seconds": round(time.monotonic() - began, 1),
        "commit": commit(),
    }


def trials(name: str, args: argparse.Namespace, numbers: object) -> object:
    """Outcomes of these trials of a family, each in a child process."""
    from chaos_documents import Documents
    from chaos_faults import Faults
    from chaos_kills import BucketFaults, Kills
    from chaos_runs import Runs
    from chaos_trials import outcomes

    makers = {
        "kills": Kills,
        "runs": Runs,
        "faults": Faults,
        "documents": Documents,
        "bucket": BucketFaults,
    }
    with tempfile.TemporaryDirectory(dir=args.workspace) as folder:
        yield from outcomes(makers[name], Path(folder), f"{args.seed}/{name}", list(numbers))


def read_records(path: Path) -> list[dict[str, object]]:
    """The lines of earlier starts."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(records: list[dict[str, object]], seed: int) -> str:
    """The table of all kinds, and how to go on."""
    from chaos_trials import OUTCOMES

    counts: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        for key, n in record["counts"].items():
            kind, _, outcome = key.rpartition(": ")
            counts[record["family"], kind, outcome] += n
    rows = []
    for family in FAMILIES:
        kinds = sorted({kind for other, kind, _ in counts if other == family})
        table = {kind: [counts[family, kind, outcome] for outcome in OUTCOMES] for kind in kinds}
        if len(table) > 1:
            table["**all**"] = [sum(column) for column in zip(*table.values(), strict=True)]
        rows += [
            (family, kind, f"{sum(of):,}", *(f"{n:,}" if n else "–" for n in of))
            for kind, of in table.items()
        ]
    commits = sorted({str(record["commit"]) for record in records})
    return "\n\n".join(
        (
            f"Seed {seed}, {sum(record['seconds'] for record in records) / 60:.0f} minutes in"
            f" {len(records)} batches, of commits {', '.join(commits)}. Small stores of every profile.",
            markdown_table(["family", "kind", "tried", *OUTCOMES], rows),
            MEANINGS,
            f"Again with: `python benchmarks/chaos.py --seed {seed}"
            + "".join(f" --{f} {sum(r['n'] for r in records if r['family'] == f)}" for f in FAMILIES)
            + "`",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
