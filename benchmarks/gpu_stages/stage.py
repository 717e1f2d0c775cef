"""What a stage of the GPU suite is, and what it is given."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

BROKEN = 3  # exit code of a stage's process: go on in a new one

Row = dict[str, object]
# Its name, and what makes its rows: one row, or several.
Measurement = tuple[str, Callable[[], Row | list[Row]]]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all stages of a run share.

    Attributes:
        out: for results and logs.
        work: for datasets, weights and stores.
        tiny: shrunken detectors on the CPU.
        dataroot, version, split: a dataset of nuScenes' image size; without one it is generated.
        deadline: when everything has to be over, in seconds of time.time().
    """

    out: Path
    work: Path
    tiny: bool = False
    dataroot: str | None = None
    version: str | None = None
    split: str | None = None
    deadline: float | None = None

    @property
    def device(self) -> str:
        """Where detectors run."""
        return "cpu" if self.tiny else "cuda"

    def to_json(self) -> str:
        """For the process of a stage."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Context:
        """What `to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "out": Path(raw["out"]), "work": Path(raw["work"])})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A question to the machine, answered in a process of its own.

    Attributes:
        module: of this package; its `measurements(context)` yields them one by one.
        minutes: expected, on one H100.
        limit: minutes after which it is ended.
    """

    name: str
    title: str
    module: str
    minutes: float
    limit: float

    def measurements(self, context: Context) -> Iterator[Measurement]:
        """In the order in which they are worth knowing."""
        return importlib.import_module(f"gpu_stages.{self.module}").measurements(context)


def flat(rows: Row | list[Row]) -> list[Row]:
    """A measurement's rows as a list."""
    return [dict(rows)] if isinstance(rows, Mapping) else list(rows)
