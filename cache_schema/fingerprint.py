"""What a store is made of, part by part: equal fingerprints mean that equal frames give equal numbers.

A part is one fact of the spec. Left out are the facts that change no stored number: the detector's display
name and the release that wrote the store.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from cache_schema.errors import FingerprintMismatch, Problem, SpecInvalid, shown
from cache_schema.fields import Unfit, canonical_json, plain
from cache_schema.spec import StoreSpec

# The words for each part, and where it stands in StoreSpec.to_dict().
PARTS: dict[str, tuple[str, ...]] = {
    "checkpoint": ("teacher", "checkpoint_sha256"),
    "trained": ("teacher", "trained"),
    "random seed": ("teacher", "random_seed"),
    "detector config": ("teacher", "config"),
    "teacher regime": ("teacher", "regime"),
    "camera order": ("inputs", "camera_order"),
    "image shape": ("inputs", "image_shape"),
    "input pipeline": ("inputs", "pipeline"),
    "inputs present": ("inputs", "present"),
    "class order": ("outputs", "class_names"),
    "box convention": ("outputs", "box_convention"),
    "query box encoding": ("outputs", "query_box_encoding"),
    "outputs not stored": ("outputs", "not_stored"),
    "dataset": ("dataset", "name"),
    "dataset version": ("dataset", "version"),
    "split": ("dataset", "split"),
    "numerics version": ("numerics", "version"),
    "op backend": ("numerics", "op_backend"),
    "device": ("numerics", "device"),
    "compute dtype": ("numerics", "compute_dtype"),
    "TF32": ("numerics", "tf32"),
    "determinism": ("numerics", "deterministic"),
    "threads": ("numerics", "threads"),
    "profile": ("profile",),
    "focal": ("focal",),
    "arrays": ("arrays",),
    "layer of": ("layer", "store_digest"),
    "layer reads": ("layer", "reads"),
    "schema version": ("schema_version",),
}
NOT_COMPARED = {("teacher", "detector"), ("written_by",)}
_NOTHING = object()
_SHOWN_LEAVES = 4  # of one part: enough to see what kind of difference it is


def fingerprint(spec: StoreSpec) -> dict[str, str]:
    """sha256 of each part, by its name in PARTS; of layers only where it is one."""
    raw = spec.to_dict()
    found = {part: _at(raw, path) for part, path in PARTS.items()}
    return {part: _sha256(value) for part, value in found.items() if value is not _NOTHING}


def digest(spec: StoreSpec) -> str:
    """One sha256 over all parts: what the manifest of every scene carries."""
    return _sha256(fingerprint(spec))


def difference(expected: StoreSpec | Mapping[str, Any], spec: StoreSpec) -> list[Problem]:
    """The parts of a store that are not as expected: (part, expected, got), the texts ready to be shown.

    Args:
        expected: a whole spec, or any part of one in the shape of `StoreSpec.to_dict`:
            `{"teacher": {"checkpoint_sha256": "5c1e…"}, "outputs": {"class_names": […]}}`, where facts may
            stand for objects. What is not in it is not compared.
        spec: what the store says.

    Raises:
        SpecInvalid: `expected` names a fact that no store has.
    """
    wanted = _expectation(expected)
    raw = spec.to_dict()
    problems = []
    for part, path in PARTS.items():
        value, got = _at(wanted, path), _at(raw, path)
        got = None if got is _NOTHING else got
        if value is not _NOTHING and canonical_json(value) != canonical_json(got):
            problems += _leaf_problems(part, value, got)
    return problems


def require(expected: StoreSpec | Mapping[str, Any], spec: StoreSpec, store: object) -> None:
    """Raise FingerprintMismatch, part by part, unless a store is as expected; see `difference`."""
    problems = difference(expected, spec)
    if problems:
        raise FingerprintMismatch(
            f"{store} was not made of what is expected here",
            problems,
            "Dump again with what is expected (extract/dump_teacher.py), or expect what the store has.",
        )


def _expectation(expected: StoreSpec | Mapping[str, Any]) -> dict[str, Any]:
    try:
        wanted = plain(expected)
    except Unfit as unfit:
        raise SpecInvalid("expectation is not valid", [Problem("expect", str(unfit), "another")]) from None
    if not isinstance(wanted, dict):
        raise SpecInvalid("expectation is not valid", [Problem("expect", "an object", shown(expected))])
    known = {*PARTS.values(), *NOT_COMPARED}
    sections = {path[0] for path in known if len(path) == 2}
    problems = []
    for name, value in wanted.items():
        if name in sections and not isinstance(value, dict):
            problems.append(Problem(name, "an object", shown(value)))
            continue
        given = [(name, field) for field in value] if name in sections else [(name,)]
        for path in set(given) - known:
            siblings = sorted(".".join(other) for other in known if other[:-1] == path[:-1])
            problems.append(Problem(".".join(path), f"no such fact (known: {', '.join(siblings)})", "one"))
    if problems:
        raise SpecInvalid("expectation is not valid", sorted(problems))
    return wanted


def _at(raw: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = raw
    for key in path:
        if key not in value:
            return _NOTHING
        value = value[key]
    return value


def _sha256(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


def _leaf_problems(part: str, expected: Any, got: Any) -> list[Problem]:
    """One problem for every scalar or list of scalars in which two values differ, cut where it gets long."""
    ours, theirs = ({path: _words(leaf) for path, leaf in _leaves(value)} for value in (expected, got))
    paths = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
    if not paths:
        return [Problem(part, "the same in another order", "this one")]
    problems = [
        Problem(f"{part} {path}".rstrip(), ours.get(path, "nothing"), theirs.get(path, "nothing"))
        for path in paths[:_SHOWN_LEAVES]
    ]
    if len(paths) > _SHOWN_LEAVES:
        more = f"{len(paths) - _SHOWN_LEAVES} more"
        problems.append(Problem(part, f"equal values in {more} places", "others"))
    return problems


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for index, item in enumerate(value):
            # A list of named things reads better, and differs less, by name than by place.
            named = isinstance(item, dict) and isinstance(item.get("name"), str)
            yield from _leaves(item, f"{path}[{item['name'] if named else index}]")
    else:
        yield path, value


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "an empty list"
    if isinstance(value, str):
        return value
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value)
