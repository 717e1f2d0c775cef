"""The result of a stage: one JSON file, there as a whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

OK, FAILED, OUT_OF_TIME = "ok", "failed", "out of time"
STATUSES = (OK, FAILED, OUT_OF_TIME)


class ResultInvalid(Exception):
    """A result cannot be read, or is of another kind of run."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage has found.

    Attributes:
        status: one of STATUSES.
        rows: of the table; one with `error` says what went wrong instead.
        environment: date, commit, machine and versions.
        fault: why the stage ended early.
    """

    stage: str
    status: str
    seconds: float
    tiny: bool
    environment: str = ""
    fault: str = ""
    rows: list[dict[str, object]] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Measurements that went wrong."""
        return sum("error" in row for row in self.rows)

    @property
    def sound(self) -> bool:
        """Whether there is nothing left to do, or to do again."""
        return self.status == OK and not self.faults

    def write(self, folder: Path) -> None:
        """To `stage`.json."""
        partial = folder / f".{self.stage}.json.partial"
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(partial, folder / f"{self.stage}.json")


def read_result(folder: Path, stage: str) -> Result | None:
    """A stage's result in a folder; None when there is none. Raises ResultInvalid."""
    path = folder / f"{stage}.json"
    if not path.is_file():
        return None
    try:
        result = Result(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ResultInvalid(f"{path} is no result of this suite ({error}): remove it") from error
    if result.stage != stage or result.status not in STATUSES:
        raise ResultInvalid(
            f"{path} is a result of stage {result.stage!r}, status {result.status!r}: remove it"
        )
    return result
