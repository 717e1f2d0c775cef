"""A results JSON in the official format, of which a page needs a few samples; a whole one takes gigabytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.comparison.runs import NotARun

_Boxes = list[dict[str, Any]]
_SAMPLE = re.compile(rb'"([^"\\]+)": \[')


class ResultsJson:
    """Boxes by sample token, read when they are asked for.

    A file with one sample a line, as an evaluation here writes it, is only searched; any other is parsed.

    Raises NotARun when the file cannot be read or is not in the format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._places = _places(path)
            self._boxes = {} if self._places else _parsed(path)
        except OSError as error:
            raise NotARun(f"{path} cannot be read: {error.strerror}") from None
        self.tokens = frozenset(self._places or self._boxes)

    def __getitem__(self, sample_token: str) -> _Boxes:
        if not self._places:
            return self._boxes[sample_token]
        start, size = self._places[sample_token]
        with self._path.open("rb") as file:
            file.seek(start)
            line = file.read(size).rstrip().removesuffix(b",")
        try:
            return json.loads(b"{" + line + b"}")[sample_token]
        except ValueError as error:
            raise NotARun(f"{self._path}, sample {sample_token}: {error}") from None


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Start and size in bytes of every sample's line; empty when samples and lines are not the same."""
    found, start = {}, 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number == 0:
                if not line.endswith(b'"results": {\n'):
                    return {}
            elif sample := _SAMPLE.match(line):
                found[sample[1].decode()] = (start, len(line))
            else:
                return found if line.strip() == b"}}" and not file.read(1) else {}
            start += len(line)
    return {}


def _parsed(path: Path) -> Mapping[str, _Boxes]:
    try:
        found = json.loads(path.read_bytes())["results"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotARun(f"{path} is not a results JSON in the official format: {error!r}") from None
    if not isinstance(found, dict):
        raise NotARun(f"{path} is not a results JSON in the official format: `results` is not an object")
    return found
