"""Frozen facts that check themselves: the base class of everything that is written as JSON.

A fact is a frozen dataclass whose fields are annotated with a check: `name: Annotated[str, text()]`. A check
takes whatever was found, returns the value in its one normal form (a list becomes a tuple) or raises `Unfit`
with the words for "expected". The checks run when a fact is built in Python and when it is read from JSON, so
there is one set of rules, and all fields that break them are reported together.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Any, Self, get_type_hints

from cache_schema.errors import Problem, SpecInvalid, shown

Check = Callable[[object], Any]


class Unfit(Exception):
    """Raised by a check; its text completes the sentence "expected …"."""


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Base of the on-disk facts. Building one raises SpecInvalid that lists every bad field."""

    def __post_init__(self) -> None:
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values, problems = self._check_fields(given)
        for name, value in values.items():
            object.__setattr__(self, name, value)
        # Rules between fields only make sense once each field stands on its own.
        problems = problems or self.contradictions()
        if problems:
            raise SpecInvalid(f"{type(self).__name__} is not valid", problems)

    def contradictions(self) -> list[Problem]:
        """Problems between fields that are fine one by one; a subclass says which."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """JSON-able copy: tuples become lists, facts become objects."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, raw: object) -> Self:
        """Inverse of `to_dict`. Raises SpecInvalid listing missing, unknown and bad fields together."""
        if not isinstance(raw, Mapping):
            raise SpecInvalid(
                f"{cls.__name__} is not valid", [Problem(cls.__name__, "an object", shown(raw))]
            )
        fields = {field.name: field for field in dataclasses.fields(cls)}
        required = [n for n, f in fields.items() if f.default is MISSING and f.default_factory is MISSING]
        problems = [Problem(name, "a value", "nothing") for name in required if name not in raw]
        problems += [
            Problem(str(name), f"no such field (known: {', '.join(fields)})", shown(raw[name]))
            for name in raw
            if name not in fields
        ]
        given = {name: raw[name] for name in fields if name in raw}
        values, bad = cls._check_fields(given)
        if problems or bad:
            raise SpecInvalid(f"{cls.__name__} is not valid", problems + bad)
        # Not by the constructor, which would check every field once more.
        made = object.__new__(cls)
        for name, field in fields.items():
            default = field.default if field.default_factory is MISSING else field.default_factory()
            object.__setattr__(made, name, values.get(name, default))
        if problems := made.contradictions():
            raise SpecInvalid(f"{cls.__name__} is not valid", problems)
        return made

    @classmethod
    def _check_fields(cls, given: Mapping[str, object]) -> tuple[dict[str, Any], list[Problem]]:
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, check in _checks(cls).items():
            if name in given:
                try:
                    values[name] = check(given[name])
                except (Unfit, SpecInvalid) as error:
                    problems += _problems_of(error, name, given[name])
        return values, problems


@cache
def _checks(kind: type[Fact]) -> dict[str, Check]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(kind)}


def text(pattern: str = r"(?s).*\S.*", expected: str = "a text that is not blank") -> Check:
    """A str that `pattern` matches from end to end."""
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            raise Unfit(expected)
        return value

    return check


def integer(minimum: int | None = None) -> Check:
    """An int that is no bool, at least `minimum`."""
    expected = "an integer" if minimum is None else f"an integer, at least {minimum}"

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or (minimum is not None and value < minimum):
            raise Unfit(expected)
        return value

    return check


def number(minimum: float, maximum: float) -> Check:
    """A finite float, or an int that becomes one, in `minimum`…`maximum`."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise Unfit(f"a number from {minimum} to {maximum}")
        return float(value)

    return check


def flag(value: object) -> bool:
    """True or false, nothing that merely counts as such."""
    if not isinstance(value, bool):
        raise Unfit("true or false")
    return value


def one_of(*allowed: str) -> Check:
    """One of a closed list of texts."""

    def check(value: object) -> str:
        if value not in allowed:
            raise Unfit(f"one of {', '.join(allowed)}")
        return value  # type: ignore[return-value]

    return check


def optional(check: Check) -> Check:
    """None, or what `check` accepts."""

    def check_unless_none(value: object) -> Any:
        if value is None:
            return None
        try:
            return check(value)
        except Unfit as error:
            raise Unfit(f"null or {error}") from None

    return check_unless_none


def each(check: Check, *, minimum: int = 0, unique: bool = False) -> Check:
    """A list or tuple whose every item passes `check`; comes out as a tuple."""

    def check_items(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) < minimum:
            raise Unfit(f"a list of at least {minimum} items" if minimum else "a list")
        items: list[Any] = []
        problems: list[Problem] = []
        for index, item in enumerate(value):
            try:
                items.append(check(item))
            except (Unfit, SpecInvalid) as error:
                problems += _problems_of(error, f"[{index}]", item)
        if problems:
            raise SpecInvalid("list is not valid", problems)
        if unique and len(set(items)) != len(items):
            raise Unfit("items that are all different")
        return tuple(items)

    return check_items


def fact(kind: type[Fact]) -> Check:
    """A `kind`, or the object that `kind.from_dict` accepts."""

    def check(value: object) -> Fact:
        return value if isinstance(value, kind) else kind.from_dict(value)

    return check


def json_object(value: object) -> dict[str, Any]:
    """A mapping of texts to anything JSON can hold exactly; comes out as a deep copy."""
    if not isinstance(value, Mapping):
        raise Unfit("an object")
    return _json_copy(value)


def flags(value: object) -> dict[str, bool]:
    """A mapping of texts to true or false; comes out as a copy."""
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(item, bool) for key, item in value.items()
    ):
        raise Unfit("an object of true and false")
    return dict(value)


def canonical_json(value: object) -> bytes:
    """The one spelling of a JSON value that checksums and fingerprints are computed over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _json_copy(value: object) -> Any:
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise Unfit("objects whose keys are all text")
        return {key: _json_copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_copy(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and value - value == 0:
        return value
    raise Unfit(f"only texts, finite numbers, true, false, null, lists and objects, not {shown(value, 60)}")


def plain(value: object) -> Any:
    """The JSON form of a value: facts and mappings as objects, tuples as lists.

    Raises Unfit for what has none.
    """
    if isinstance(value, Fact):
        return value.to_dict()
    if isinstance(value, Mapping):
        value = {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return _json_copy(value)


def _problems_of(error: Unfit | SpecInvalid, where: str, value: object) -> list[Problem]:
    """The problems of one field, each with the path that leads to it: `arrays[2].dtype`."""
    if isinstance(error, Unfit):
        return [Problem(where, str(error), shown(value))]
    return [
        Problem(
            where + problem.where if problem.where.startswith("[") else f"{where}.{problem.where}",
            problem.expected,
            problem.got,
        )
        for problem in error.problems
    ]
