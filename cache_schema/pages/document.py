"""A page put together: template and style from the files beside, sections and facts from its writer."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from cache_schema.errors import CacheError
from cache_schema.pages.escape import escaped, script_json


def asset(package: str, name: str) -> str:
    """The text of a file that lies beside a package's modules."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def document(*, title: str, subtitle: str, body: str, facts: Mapping[str, Any], script: str) -> str:
    """The HTML of a page.

    Args:
        title, subtitle: plain text.
        body: its sections, as HTML.
        facts: what the script draws; numbers are finite.
        script: runs after `boxes.js` and `gallery.js`; the page forbids all others, and all files.
    """
    script = asset(__package__, "boxes.js") + asset(__package__, "gallery.js") + script
    return Template(asset(__package__, "page.html")).substitute(
        title=escaped(title),
        subtitle=escaped(subtitle),
        style=asset(__package__, "page.css"),
        body=body,
        facts=script_json(facts),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def gallery_panels(layout: str, controls: str) -> str:
    """The part of a page that `gallery.js` fills.

    Args:
        layout: class of the panels in `page.css`.
        controls: the page's own, as HTML.
    """
    return Template(asset(__package__, "gallery.html")).substitute(layout=layout, controls=controls)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """A list of names and values."""
    return "<dl>" + "".join(f"<dt>{escaped(k)}</dt><dd>{escaped(v)}</dd>" for k, v in rows) + "</dl>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, which scrolls when the window is narrow."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def check_folder(out: Path) -> None:
    """Raises CacheError when a page cannot be written there, before work is done for it."""
    if out.is_dir():
        raise CacheError(f"{out} is a folder: name a file to write, such as {out / 'page.html'}")
    if not out.parent.is_dir():
        raise CacheError(f"{out} cannot be written: there is no folder {out.parent}. Make it first.")


def write_page(out: Path, page: str) -> int:
    """Write the file; returns its bytes. Raises CacheError."""
    data = page.encode()
    try:
        out.write_bytes(data)
    except OSError as error:
        raise CacheError(f"{out} cannot be written: {error.strerror}") from None
    return len(data)
