"""Hostile documents: every JSON file of a store with values that nobody would write, signed where one can.

A forger computes checksums anew. One who leaves the seal alone must be noticed; one who writes it anew too is
noticed by who kept the store's digest, and does no harm to who did not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

from chaos_stores import SCENES, World, everything, worlds
from chaos_trials import CRASHED, NOTICED, OUTSIDE, SILENT

from cache_schema import inspect_cache
from cache_schema.codec import crc32c
from cache_schema.errors import CacheError
from cache_schema.fields import canonical_json
from cache_schema.inspection.verify import verify
from cache_schema.store_root import (
    PLAN_ATTRIBUTE,
    PLAN_CHECKSUM_ATTRIBUTE,
    SPEC_ATTRIBUTE,
    SPEC_CHECKSUM_ATTRIBUTE,
)

ROOT, SEAL = "zarr.json", "sealed.json"
HOSTILE: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    1 << 31,
    1 << 63,
    -(1 << 63),
    10**400,
    1e308,
    0.5,
    "",
    "x" * 10_000,
    "../../../mine",
    "/etc/passwd",
    ".",
    "a/../../b",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.tac",
    "\ud800",
    "\0",
    "nan",
    [],
    {},
    [[]],
    [1, "a", None],
    {"": ""},
    {"__class__": "os.system", "$ref": "#"},
    list(range(5_000)),
    [{}] * 3_000,
)


OBEYED = ("\x1b[2J", "\x1b]0;", "\x07", "\u202e")  # by a terminal; progress bars use others


def deep(levels: int) -> object:
    """Lists in lists."""
    value: object = []
    for _ in range(levels):
        value = [value]
    return value


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """Where values stand in a document."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(record: object, rng: random.Random) -> object:
    """A document with one to three hostile values, missing or additional fields."""
    record = json.loads(json.dumps(record))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        where = list(places(record))
        if not where:
            return record
        *parents, last = rng.choice(where)
        holder = record
        for key in parents:
            holder = holder[key]
        what = rng.random()
        if what < 0.1:
            del holder[last]
        elif what < 0.2 and isinstance(holder, dict):
            holder[rng.choice(("extra", "", "\x1b[2J", last * 50))] = rng.choice(HOSTILE)
        elif what < 0.25 and isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), holder[last])
        elif what < 0.3:
            holder[last] = deep(rng.choice((10, 60, 70, 500)))
        elif what < 0.45 and isinstance(holder[last], int) and not isinstance(holder[last], bool):
            holder[last] = holder[last] + rng.choice((-1, 1, 1 << 20, 1 << 40))
        else:
            holder[last] = rng.choice(HOSTILE)
    return record


def spoiled(data: bytes, rng: random.Random) -> bytes:
    """Bytes that are no document, or one by another name."""
    cut = rng.randrange(len(data))
    return rng.choice(
        (
            data[:cut],
            data[:cut] + rng.randbytes(5) + data[cut:],
            b"\xef\xbb\xbf" + data,
            data.decode().encode("utf-16"),
            data.replace(b":", b": " * 2000, 50),
            data.replace(b"{", b'{"a":1,"a":', 1),
            data + data,
            b"[" * 100_000,
            b"[" + b"0," * 200_000 + b"0]",
            b'{"a":' * 5_000,
            b"9" * 100_000,
            b'"' + b"\\" * 50_001,
            b"\0" * 1000,
            b"NaN",
            b"{}",
            b"null",
        )
    )


class Documents:
    """Each trial writes one hostile document into a store and reads it in every way."""

    limit_s = 60.0

    def __init__(self, folder: Path) -> None:
        self._worlds = worlds(folder)

    def kind(self, number: int, rng: random.Random) -> str:
        """See Family."""
        return ("no document", "signed, seal left alone", "signed, sealed anew")[number % 3]

    def trial(self, kind: str, rng: random.Random) -> tuple[str, str]:
        """See Family."""
        world = rng.choice(self._worlds)
        try:
            name = rng.choice([f for f in world.files if f.endswith(".json")])
            if rng.random() < 0.6:  # those with much in them
                name = rng.choice(
                    [ROOT, SEAL, "teacher_head/manifest.json", *(f"scenes/{s}/manifest.json" for s in SCENES)]
                )
            path = world.store / name
            if kind == "no document":
                path.write_bytes(spoiled(path.read_bytes(), rng))
            else:
                forge(world.store, name, rng)
                if kind == "signed, sealed anew":
                    seal_anew(world.store)
            return self._read(world, anew=kind == "signed, sealed anew")
        finally:
            world.restore()

    def _read(self, world: World, *, anew: bool) -> tuple[str, str]:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            for command in ("info", "verify"):
                code = inspect_cache.main([command, str(world.store)])
                if code not in (0, 1, 2):
                    return CRASHED, f"{command} ended with {code}"
        if any(words in shown.getvalue() for words in OBEYED):
            return OUTSIDE, "the terminal was told what to do"
        if not anew:
            return world.verdict()
        with contextlib.suppress(CacheError):
            verify(world.store)
            everything(world.store)
        try:
            got = everything(world.store, expect_digest=world.digest)
        except CacheError:
            return (OUTSIDE, touched) if (touched := world.outside_touched()) else (NOTICED, "")
        if got != world.intact:
            return SILENT, "who expects the digest got other values"
        return world.verdict()


def forge(store: Path, name: str, rng: random.Random) -> None:
    """Change a document, and compute its own checksums anew."""
    path = store / name
    document = json.loads(path.read_bytes())
    if name == ROOT and rng.random() < 0.9:
        attributes = document["attributes"]
        for raw, checksum in (
            (SPEC_ATTRIBUTE, SPEC_CHECKSUM_ATTRIBUTE),
            (PLAN_ATTRIBUTE, PLAN_CHECKSUM_ATTRIBUTE),
        ):
            if rng.random() < 0.6:
                attributes[raw] = changed(attributes[raw], rng)
                attributes[checksum] = crc32c(canonical_json(attributes[raw]))
        path.write_bytes(json.dumps(document, indent=2).encode())
    elif "manifest" in document:
        path.write_bytes(signed(changed(document["manifest"], rng)))
    else:
        path.write_bytes(json.dumps(changed(document, rng)).encode())


def signed(record: object) -> bytes:
    """A manifest or seal whose checksum fits."""
    body = canonical_json(record)
    return b'{"crc32c":"%s","manifest":%s}\n' % (crc32c(body).encode(), body)


def seal_anew(store: Path) -> None:
    """Let the seal fit what stands in the store now, as far as it has that form."""
    record = json.loads((store / SEAL).read_bytes())["manifest"]
    if not isinstance(record, dict):
        return

    def digest(name: str) -> str:
        return hashlib.sha256((store / name).read_bytes()).hexdigest()

    record["root_sha256"] = digest(ROOT)
    record["teacher_head_sha256"] = digest("teacher_head/manifest.json")
    scenes = record.get("scenes")
    for scene in scenes if isinstance(scenes, list) else ():
        if isinstance(scene, dict) and scene.get("scene_name") in list(SCENES):  # it may be anything
            scene["manifest_sha256"] = digest(f"scenes/{scene['scene_name']}/manifest.json")
    (store / SEAL).write_bytes(signed(record))
