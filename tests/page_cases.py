"""What a test asks of a page's text: its facts, and that it stands alone."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

_VOID = {"meta", "input", "br", "img", "link", "hr"}
_NAMES_A_FILE = {"src", "href", "action", "data", "poster", "srcset"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _NAMES_A_FILE and not (value or "").startswith("data:"):
                self.faults.append(f"<{tag} {name}={value!r}> is another file")
            if name.startswith("on"):
                self.faults.append(f"<{tag}> has {name}")
            if name == "id":
                self.ids.append(value)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


def faults_of(page: str) -> list[str]:
    """Elements that are not closed, ids that are there twice, and all that is not in the file itself."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    twice = {name for name in reader.ids if reader.ids.count(name) > 1}
    return (
        reader.faults + [f"<{tag}> is not closed" for tag in reader.open] + [f"id {i} twice" for i in twice]
    )


def facts_of(page: str) -> dict[str, Any]:
    """The numbers that the page's script draws."""
    return json.loads(re.search(r'<script type="application/json" id="facts">(.*?)</script>', page, re.S)[1])
