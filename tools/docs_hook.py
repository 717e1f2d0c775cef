"""What mkdocs does besides mkdocs.yml: measurements become pages, and links to code become plain names.

The pages of docs/ are read in two places, in the repository and on the site. In the repository a link such as
../benchmarks/results/profiles.md leads to the file; the site has no folder above docs/.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)]*)?\)")
FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)\s*$", re.MULTILINE | re.DOTALL)
# A warning: mkdocs ends a strict build with an error for each.
log = logging.getLogger("mkdocs.hooks.focalcache")


def on_config(config: object) -> object:
    """Add the measurements to the navigation."""
    config["nav"].append({"Measurements": [f"results/{path.name}" for path in sorted(RESULTS.glob("*.md"))]})
    return config


def on_files(files: Files, config: object) -> Files:
    """Add the pages of benchmarks/results, below results/."""
    for path in sorted(RESULTS.glob("*.md")):
        files.append(File.generated(config, f"results/{path.name}", content=path.read_text()))
    return files


def on_page_markdown(markdown: str, *, page: object, **_: object) -> str:
    """Send links that leave docs/ to the page made of that file, or leave only their words."""
    here = page.file.src_uri
    source = RESULTS / posixpath.basename(here) if here.startswith("results/") else ROOT / "docs" / here
    parts, last = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [_linked(markdown[last : fence.start()], source, here), fence.group()]
        last = fence.end()
    return "".join([*parts, _linked(markdown[last:], source, here)])


def _linked(text: str, source: Path, here: str) -> str:
    def replaced(match: re.Match) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        path = (source.parent / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which is not there", here, target)
        if path.is_relative_to(RESULTS) and path.suffix == ".md":
            page = f"results/{path.name}"
        elif path.is_relative_to(ROOT / "docs") and path.is_file():
            page = path.relative_to(ROOT / "docs").as_posix()
        else:
            return words
        return f"[{words}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(replaced, text)
