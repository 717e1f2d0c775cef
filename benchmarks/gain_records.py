"""One line a finished training, and the statistics of such lines.

A record is told by the digest of its settings and by its seed. Rows and commits may be renamed: the digest
alone decides what is compared with what.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from common import markdown_table

METRICS = ("nds", "mean_ap")


class RecordInvalid(Exception):
    """A line of the records cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A finished training and its score on the held-out scenes.

    Attributes:
        row, horizon: as they were called; for the reader.
        digest: of all settings but the seed.
        seconds: of the training with its evaluation, on `processor`.
        commit: of the code.
    """

    row: str
    horizon: str
    seed: int
    digest: str
    nds: float
    mean_ap: float
    tp_errors: Mapping[str, float]
    seconds: float
    processor: str
    commit: str

    @classmethod
    def from_line(cls, line: str, where: str) -> Self:
        """Raises RecordInvalid, naming the place."""
        try:
            return cls(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise RecordInvalid(f"{where}: no record of a training ({error}). Remove the line.") from error


@dataclass(frozen=True)
class Records:
    """The file of records, one JSON object a line; lines are only ever added."""

    path: Path

    def read(self) -> dict[tuple[str, int], Record]:
        """By digest and seed. Raises RecordInvalid."""
        if not self.path.is_file():
            return {}
        lines = self.path.read_text().splitlines()
        found = (Record.from_line(line, f"{self.path}:{n}") for n, line in enumerate(lines, start=1))
        return {(record.digest, record.seed): record for record in found}

    def add(self, record: Record) -> None:
        """Append, unless these settings and this seed have a record. Other processes may do the same."""
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if (record.digest, record.seed) not in self.read():
                file.write(json.dumps(asdict(record)) + "\n")
                file.flush()


def digest_of(settings: Mapping[str, object]) -> str:
    """Of settings, whatever the order of their keys."""
    text = json.dumps(settings, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error; the error is NaN for a single value."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one value or more."""
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(statistics.mean(values), error)

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if math.isnan(self.error) else f" ± {self.error:.4f}")


def gain(
    with_it: Mapping[int, Record], without: Mapping[int, Record], metric: str
) -> tuple[Estimate | None, int]:
    """What a row has over another, over the seeds that both have; and how many these are."""
    seeds = sorted(set(with_it) & set(without))
    gains = [getattr(with_it[seed], metric) - getattr(without[seed], metric) for seed in seeds]
    return (Estimate.of(gains) if gains else None), len(seeds)


def table(by_row: Mapping[str, Mapping[int, Record]], *, baselines: Mapping[str, str]) -> str:
    """A line a row that has records.

    Args:
        by_row: the records by seed, of each row.
        baselines: rows that gains are taken over, and how the table calls them.
    """
    header = ["", "seeds", "NDS", "mAP"]
    header += [f"{name} over {called}" for called in baselines.values() for name in ("NDS", "mAP")]
    lines = []
    for row, records in by_row.items():
        if not records:
            continue
        cells = [Estimate.of([getattr(record, metric) for record in records.values()]) for metric in METRICS]
        for baseline in baselines:
            for metric in METRICS:
                found = None if row == baseline else gain(records, by_row.get(baseline, {}), metric)[0]
                cells.append("" if found is None else found)
        seconds = statistics.mean(record.seconds for record in records.values())
        lines.append([row, len(records), *cells, f"{seconds:.0f}"])
    return markdown_table([*header, "seconds"], lines)


def step_table(by_row: Mapping[str, Mapping[int, Record]], steps: Iterable[tuple[str, str]]) -> str:
    """What each step from one row to another gains, also in standard errors."""
    lines = []
    for before, after in steps:
        cells: list[object] = []
        for metric in METRICS:
            found, seeds = gain(by_row.get(after, {}), by_row.get(before, {}), metric)
            if found is None:
                break
            certain = found.error > 0
            cells += [found, f"{found.mean / found.error:+.1f}" if certain else ""]
        else:
            lines.append([before, after, seeds, *cells])
    header = ["from", "to", "seeds", "NDS gained", "in errors", "mAP gained", "in errors"]
    return markdown_table(header, lines)
