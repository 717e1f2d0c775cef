"""What goes wrong in the processes that read data, told in the process that asked for it.

A DataLoader keeps an exception's class and buries its message under the worker's traceback; and of a worker
that was killed it tells in a RuntimeError, out of a signal handler, wherever its parent happens to be.
"""

from __future__ import annotations

import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from torch.utils.data import DataLoader, get_worker_info

from camera3d.errors import DataWorkerDied

Item = TypeVar("Item")
_WAY_OUT = (
    "Most often there was too little memory: give fewer --workers, and look at the system's log and at"
    " /dev/shm."
)
_DEATH = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w[\w ]*))?")


class _InWorker(Exception):
    """A worker's traceback, for whoever is shown the whole chain."""


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker, as a value that travels."""

    error: Exception
    told: str

    def raised(self) -> Exception:
        """The error as the worker raised it."""
        self.error.__cause__ = _InWorker(f"\n{self.told}")
        return self.error


def or_failure(read: Callable[[], Item]) -> Item | Failure:
    """What `read` gives; in a worker, a Failure in place of an exception that can travel."""
    if get_worker_info() is None:
        return read()
    try:
        return read()
    except Exception as error:
        failure = Failure(error, traceback.format_exc())
        try:
            pickle.loads(pickle.dumps(failure))
        except Exception:
            raise error from None  # the DataLoader has its own way with it
        return failure


class TellingLoader(DataLoader):
    """A DataLoader over batches that may be Failures: raises what they hold."""

    def __iter__(self) -> Iterator[object]:
        return _told(super().__iter__())  # whose workers start here, not with the first batch


def _told(batches: Iterator[object]) -> Iterator[object]:
    for batch in batches:
        if isinstance(batch, Failure):
            raise batch.raised()
        yield batch


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Raise DataWorkerDied in place of the DataLoader's RuntimeError about a worker that died."""
    try:
        yield
    except Exception as error:
        death = _death_in(error)
        if death is None:
            raise
        raise DataWorkerDied(f"a process that reads data {death}. {_WAY_OUT}") from error


def _death_in(error: BaseException) -> str | None:
    """How a worker died, if that is what `error` or an error behind it tells.

    The DataLoader's signal handler raises wherever the parent is, and a library may make an error of its own
    of that: `inspect` answers with a TypeError.
    """
    if isinstance(error, ConnectionError | EOFError):
        # It died while it handed the memory of a batch over, before the DataLoader looked after it.
        return f"ended ({str(error) or type(error).__name__})"
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RuntimeError) and (death := _DEATH.match(str(seen))) is not None:
            processes, signal_name = death.groups()
            how = f"was ended by a signal ({signal_name.strip()})" if signal_name else "ended"
            return f"(pid {processes}) {how}"
        seen = seen.__cause__ or seen.__context__
    return None
