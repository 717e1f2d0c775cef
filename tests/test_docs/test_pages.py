"""Links of README and docs lead somewhere, and the table of config keys is that of the code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Those that GitHub and mkdocs make of the headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    lost = []
    for target in LINK.findall(FENCED.sub("", page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path) if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            lost.append(target)
    assert not lost


def test_the_table_of_config_keys_is_that_of_the_code():
    tool = config_keys()
    assert tool.PAGE.read_text() == tool.page(), "run: python tools/config_keys.py"


def test_a_key_without_words_is_an_error():
    tool = config_keys()
    with pytest.raises(tool.NoWords, match="an_unheard_of_key: add a line"):
        tool._words("an_unheard_of_key")


def test_errors_of_the_troubleshooting_page_are_raised_somewhere():
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    named = set(re.findall(r"`([A-Z][a-z]\w+)[:`]", page)) & set(re.findall(r"`([A-Z]\w*[A-Z]\w*)[:`]", page))
    packages = ("cache_schema", "camera3d", "extract", "train")
    code = "\n".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))
    assert len(named) >= 20
    assert not [name for name in named if f"class {name}(" not in code]


def config_keys():
    spec = importlib.util.spec_from_file_location("config_keys", ROOT / "tools" / "config_keys.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert page.relative_to(ROOT / "docs").as_posix() in navigation, page


def test_the_site_is_built_without_a_broken_link(tmp_path):
    pytest.importorskip("material", reason="make docs installs mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "results" / "profiles.html").is_file()


@pytest.mark.parametrize("number", range(1, 16))
def test_decisions_are_numbered_without_a_gap(number):
    assert len(list((ROOT / "docs" / "decisions").glob(f"{number:04}-*.md"))) == 1
