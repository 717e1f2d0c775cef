"""The one exception tree of the store: an entry script turns these into a message and exit code 2."""

from collections.abc import Iterable
from typing import NamedTuple


class CacheError(Exception):
    """Base of every error that a store reports about itself or about what it was asked.

    Its text may quote what stands in a store: what a terminal would obey is spelled out.
    """

    def __str__(self) -> str:
        return "\n".join(map(printable, super().__str__().split("\n")))


class StoreNotFound(CacheError):
    """No store, or not the part of it that was asked for, at this path."""


class SchemaTooNew(CacheError):
    """The store was written by a later format than this reader knows."""


class SchemaTooOld(CacheError):
    """The store was written by an earlier format than this reader reads."""


class SampleMissing(CacheError):
    """A sample token that the store does not hold, or that a scene promised and did not get."""


class Corrupt(CacheError):
    """Bytes on disk contradict what was recorded about them."""


class NotFinite(CacheError):
    """A NaN or infinity where only finite numbers are stored."""


class AlreadyPublished(CacheError):
    """A store, scene or teacher head that is finished, and therefore never rewritten."""


class NotWritable(CacheError):
    """The disk is full, or does not let us write: what was published stays, the rest can follow later."""


class Unreadable(CacheError):
    """The system does not hand a file out; the file itself may be as it was written."""


class DigestMismatch(CacheError):
    """The store is another one than the one that the caller named by its digest, or has none."""


class NotOurs(CacheError):
    """Something in a store that no dump made, a link or a folder of somebody's: it is left as it is."""


class StorageUnavailable(CacheError):
    """An object store refused a request, or kept failing although it was repeated."""


class Problem(NamedTuple):
    """One mismatch: where it is, what belongs there, what was found."""

    where: str
    expected: str
    got: str


class FingerprintMismatch(CacheError):
    """The store was not made by the teacher, inputs or dataset that the caller expects.

    Args:
        title: which store does not fit what, the first line of the message.
        problems: the parts that differ, one line each.
        way_out: what to do about it, the last lines.
    """

    def __init__(self, title: str, problems: Iterable[Problem] = (), way_out: str = "") -> None:
        self.title = title
        self.problems = tuple(problems)
        self.way_out = way_out
        width = max((len(problem.where) for problem in self.problems), default=0)
        lines = [f"  {p.where:<{width}}  expected {p.expected}; store has {p.got}" for p in self.problems]
        super().__init__("\n".join([title, *lines, *([way_out] if way_out else [])]))

    def __reduce__(self) -> tuple[type, tuple[str, tuple[Problem, ...], str]]:
        return type(self), (self.title, self.problems, self.way_out)


class SpecInvalid(CacheError):
    """Facts or arrays that do not fit; every mismatch is listed, not only the first.

    Args:
        title: what is invalid, the first line of the message.
        problems: the mismatches, one line each.
    """

    def __init__(self, title: str, problems: Iterable[Problem] = ()) -> None:
        self.title = title
        self.problems = tuple(problems)
        width = max((len(problem.where) for problem in self.problems), default=0)
        lines = [f"  {p.where:<{width}}  expected {p.expected}; got {p.got}" for p in self.problems]
        super().__init__("\n".join([title, *lines]))

    def __reduce__(self) -> tuple[type, tuple[str, tuple[Problem, ...]]]:
        # The default would hand the whole message back in as the title, and lose the problems.
        return type(self), (self.title, self.problems)


def printable(text: str) -> str:
    """A name as it may be printed: what a terminal would obey, and line breaks, are spelled out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def shown(value: object, limit: int = 120) -> str:
    """`repr` of a value for an error message, cut where it would flood the screen."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
