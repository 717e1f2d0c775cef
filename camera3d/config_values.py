"""What may stand under a key of a config, and how a key that nobody knows or a wrong value is told of.

A check has `faults(path, value)`: one line for everything that is wrong with the value at that dotted path.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol

from mmengine.registry import DefaultScope, Registry
from torch import nn


class Check(Protocol):
    """What all of the below are."""

    def faults(self, path: str, value: object) -> list[str]:
        """A line for everything that is wrong."""
        ...


@dataclass(frozen=True)
class Value:
    """A single value: `words` say what is expected."""

    words: str
    fits: Callable[[object], bool]

    def faults(self, path: str, value: object) -> list[str]:
        """See Check."""
        return [] if self.fits(value) else [f"{path}: expected {self.words}, got {value!r}"]


def is_number(value: object) -> bool:
    """Whether it counts as a number; true and false do not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(least: int | None = None) -> Value:
    """A whole number, of `least` or more."""
    words = "a whole number" if least is None else f"a whole number of {least} or more"
    return Value(words, lambda v: is_number(v) and isinstance(v, int) and (least is None or v >= least))


def choice(*values: object) -> Value:
    """One of these."""
    return Value(f"{', '.join(map(str, values[:-1]))} or {values[-1]}", lambda value: value in values)


def numbers(count: int, *, of: Value) -> Value:
    """So many values of a kind, in a tuple or list."""
    words = f"{count} of: {of.words}"
    return Value(
        words,
        lambda value: isinstance(value, tuple | list) and len(value) == count and all(map(of.fits, value)),
    )


NUMBER = Value("a number", is_number)
FLAG = Value("True or False", lambda value: isinstance(value, bool))
TEXT = Value("text", lambda value: isinstance(value, str))
DICT = Value("a dict", lambda value: isinstance(value, dict))
ANYTHING = Value("anything", lambda value: True)

# Values of constructors' keywords are looked at where the annotation is one of these.
ANNOTATED = {
    "int": whole(),
    "float": NUMBER,
    "bool": FLAG,
    "str": TEXT,
    "tuple[int, int]": numbers(2, of=whole()),
}


def unknown(path: str, name: str, known: Iterable[str]) -> str:
    """The line about a key that nobody knows: with the nearest one that somebody does, or with all."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    end = f"; did you mean {near[0]}?" if near else f" (known: {', '.join(known)})"
    return f"{path}{name}: unknown{end}"


@dataclass(frozen=True)
class Section:
    """A dict of which every key is known.

    Attributes:
        keys: the check of each.
        own: the start of a name that anybody may use for something else.
    """

    keys: Mapping[str, Check]
    own: str | None = None

    def faults(self, path: str, value: object) -> list[str]:
        """See Check. The path of a whole config is empty."""
        if not isinstance(value, dict):
            return [f"{path}: expected a dict, got {value!r}"]
        prefix = f"{path}." if path else ""
        found = []
        for name, item in value.items():
            if name in self.keys:
                found += self.keys[name].faults(prefix + name, item)
            elif self.own is None or not str(name).startswith(self.own):
                line = unknown(prefix, str(name), self.keys)
                own = self.own is not None and "did you mean" not in line
                found.append(f"{line}; names of your own begin with {self.own}" if own else line)
        return found


@dataclass(frozen=True)
class OrNone:
    """None, or what another check wants."""

    check: Check

    def faults(self, path: str, value: object) -> list[str]:
        """See Check."""
        return [] if value is None else self.check.faults(path, value)


@dataclass(frozen=True)
class Each:
    """A list, or the values of a dict with free keys, each of one kind."""

    check: Check
    kind: type

    def faults(self, path: str, value: object) -> list[str]:
        """See Check."""
        if not isinstance(value, self.kind):
            return [f"{path}: expected a {self.kind.__name__}, got {value!r}"]
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [line for name, item in items for line in self.check.faults(f"{path}.{name}", item)]


@dataclass(frozen=True)
class Part:
    """A dict with a `type` out of a registry, and the keywords of that class's constructor.

    Attributes:
        given: keywords that whoever builds it supplies.
        keys: checks of keys that the constructor does not have, or does not say enough about.
    """

    registry: Registry
    given: Sequence[str] = ()
    keys: Mapping[str, Check] = field(default_factory=dict)

    def faults(self, path: str, value: object) -> list[str]:
        """See Check."""
        if not isinstance(value, dict):
            return [f"{path}: expected a dict, got {value!r}"]
        kind = value.get("type")
        if not isinstance(kind, str):
            return [f"{path}.type: expected the name of a registered class, got {kind!r}"]
        built = self.registry.get(kind)
        if built is None:
            near = get_close_matches(kind, self.registry.module_dict, n=1)
            return [
                f"{path}.type: {kind!r} is not registered" + (f"; did you mean {near[0]}?" if near else "")
            ]
        known = keywords(built)
        parts = getattr(built, "config_parts", {})
        found = []
        for name, item in value.items():
            if name in self.keys:
                found += self.keys[name].faults(f"{path}.{name}", item)
            elif name in parts:
                found += keyword_faults(f"{path}.{name}", item, parts[name])
            elif name == "type" or known is None:
                continue
            elif name not in known or name in self.given:
                found.append(unknown(f"{path}.", str(name), {*known, *self.keys, "type"} - set(self.given)))
            elif isinstance(item, dict):
                found += self._inner(f"{path}.{name}", name, item)
            else:
                found += annotated_faults(f"{path}.{name}", item, known[name])
        return found

    def _inner(self, path: str, name: str, item: dict) -> list[str]:
        # Weights are drawn by configs of another registry, and some parts have no type.
        if name == "init_cfg" or ("type" not in item and name not in INNER):
            return []
        return Part(self.registry, keys=INNER.get(name, {})).faults(path, item)


@dataclass(frozen=True)
class WholeModel:
    """A dict of another library that holds parts of many kinds: of every one with a `type`, the keywords.

    Attributes:
        registries: where the types are looked for, one after the other.
        scope: of these types, when they name none.
    """

    registries: Sequence[Registry]
    scope: str

    def faults(self, path: str, value: object) -> list[str]:
        """See Check."""
        if not isinstance(value, dict):
            return [f"{path}: expected a dict, got {value!r}"]
        with DefaultScope.overwrite_default_scope(self.scope):
            found = self._faults(path, value)
        return found or ([] if "type" in value else [f"{path}.type: missing"])

    def _faults(self, path: str, value: object) -> list[str]:
        name = path.rpartition(".")[2]
        if isinstance(value, list | tuple):
            return [line for i, item in enumerate(value) for line in self._faults(f"{path}.{i}", item)]
        if not isinstance(value, dict) or name in OTHER_TYPES:
            return []
        if "type" in value:
            found = self._of_type(path, value, INNER.get(name, {}))
        else:  # a part of its owner's settings, unless the word is misspelt
            near = get_close_matches("type", map(str, value), n=1, cutoff=0.8)
            found = [unknown(f"{path}.", key, ("type",)) for key in near]
        return found + [line for key, item in value.items() for line in self._faults(f"{path}.{key}", item)]

    def _of_type(self, path: str, value: dict, more: Mapping[str, Check]) -> list[str]:
        kind = value["type"]
        if not isinstance(kind, str):
            return [f"{path}.type: expected the name of a registered class, got {kind!r}"]
        built = next(filter(None, (registry.get(kind) for registry in self.registries)), None)
        if built is None:
            return [f"{path}.type: {kind!r} is not registered"]
        known = keywords(built)
        if known is None:
            return []
        known_names = {*known, *more, "type"}
        return [unknown(f"{path}.", name, known_names) for name in value if name not in known_names]


# Their `type` is no registered class: a function of mmcv, or a way to draw weights.
OTHER_TYPES = ("nms", "roi_layer", "init_cfg")
# What mmdet's backbones take out of such a dict before they build the rest.
INNER: Mapping[str, Mapping[str, Check]] = {
    "norm_cfg": {"requires_grad": FLAG},
    "dcn": {"fallback_on_stride": FLAG},
}


def keywords(built: object) -> dict[str, inspect.Parameter] | None:
    """The keywords of a class's constructor, with those that it hands on to its bases, or of a function.

    None when it takes any.
    """
    makers = [built]
    if inspect.isclass(built):
        makers = [base.__init__ for base in built.__mro__ if "__init__" in vars(base)]
    found: dict[str, inspect.Parameter] = {}
    for maker in makers:
        if maker in (nn.Module.__init__, object.__init__):
            return found
        parameters = inspect.signature(maker).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        found.pop("self", None)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found
    return None


def keyword_faults(path: str, value: object, built: object) -> list[str]:
    """What is wrong with a dict of keywords for a class or function."""
    if not isinstance(value, dict):
        return [f"{path}: expected a dict, got {value!r}"]
    known = keywords(built) or {}
    found = []
    for name, item in value.items():
        if name not in known:
            found.append(unknown(f"{path}.", str(name), known))
        else:
            found += annotated_faults(f"{path}.{name}", item, known[name])
    return found


def annotated_faults(path: str, value: object, parameter: inspect.Parameter) -> list[str]:
    """What is wrong with a value, as far as its keyword's annotation tells."""
    annotation = parameter.annotation
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    check = ANNOTATED.get(name)
    left_out = value is None and parameter.default is None
    return [] if check is None or left_out else check.faults(path, value)
