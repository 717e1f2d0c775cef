"""The code blocks of README and docs, and the commands in them."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent.name != "decisions"),
]
# What a block may need that a test does not have.
NEEDS = {"nuScenes", "a GPU", "a bucket", "the network", "minutes", "a shell"}
NOT_COMMANDS = {"text", "bibtex"}
MARK = re.compile(r"<!-- (needs|with|run by) (.+) -->")
SCRIPTS = {
    "cache_schema/inspect_cache.py": "cache_schema.inspect_cache",
    "extract/dump_teacher.py": "extract.dump_teacher",
    "train/compare.py": "train.compare",
    "train/distill_from_cache.py": "train.distill_from_cache",
    "train/evaluate.py": "train.evaluate",
    "train/train_detector.py": "train.train_detector",
    "train/train_distillation_head.py": "train.train_distillation_head",
}
MODULES = {"synthetic_nuscenes": "synthetic_nuscenes.__main__", "demo": "demo.__main__"}
# The same under one name, where that package is there.
CONSOLE = {
    "dump": "extract.dump_teacher",
    "distil": "train.distill_from_cache",
    "head": "train.train_distillation_head",
    "train": "train.train_detector",
    "evaluate": "train.evaluate",
    "compare": "train.compare",
    "inspect": "cache_schema.inspect_cache",
    "synth": "synthetic_nuscenes.__main__",
    "demo": "demo.__main__",
}
# Not ours: they are named, and their arguments are theirs.
FOREIGN = {"pip", "export", "source", "sha256sum", "cd", "git", "docker", "sbatch"}
FOREIGN_MODULES = {"build", "pytest", "pip"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: what stands behind the fence; "bash" where nothing does.
        mark: verb and object of the comment before it, such as ("needs", "nuScenes").
    """

    page: Path
    line: int
    language: str
    mark: tuple[str, str] | None
    text: str

    @property
    def name(self) -> str:
        """For test ids and messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def kind(self) -> str:
        """`run`, `parse` (something is missing here), `elsewhere` (another test runs it) or `text`."""
        if self.language in NOT_COMMANDS:
            return "text"
        verb = self.mark[0] if self.mark else "with"
        return {"needs": "parse", "run by": "elsewhere", "with": "run"}[verb]


def blocks_of(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order. A comment counts when it is the line before the fence."""
    lines = page.read_text().splitlines()
    number = 0
    while number < len(lines):
        if not lines[number].startswith("```"):
            number += 1
            continue
        first = number
        end = next(i for i in range(first + 1, len(lines)) if lines[i].startswith("```"))
        found = MARK.fullmatch(lines[first - 1].strip()) if first else None
        yield Block(
            page,
            first + 1,
            lines[first][3:].strip() or "bash",
            (found[1], found[2]) if found else None,
            "\n".join(lines[first + 1 : end]),
        )
        number = end + 1


def all_blocks() -> list[Block]:
    """Of all pages."""
    return [block for page in PAGES for block in blocks_of(page)]


def commands_of(text: str) -> list[list[str]]:
    """The commands of a block as words, without comments; a backslash at the end joins two lines."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@dataclass(frozen=True)
class Ours:
    """A command of this project: the module whose `main` it is, and its arguments."""

    module: str
    argv: tuple[str, ...]


def ours(words: list[str]) -> Ours | None:
    """What a command calls, if it is ours. Raises ValueError when nobody has such a command."""
    program, *rest = words
    if program == "make":
        for target in (word for word in rest if "=" not in word):
            if not re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
                raise ValueError(f"make {target}: no such target")
        return None
    if program in FOREIGN:
        return None
    if program == "torchrun":
        args = get_args_parser().parse_args(rest)
        rest = [*(["-m"] if args.module else []), args.training_script, *args.training_script_args]
        program = "python"
    if program == "focalcache":
        return Ours(CONSOLE[rest[0]], tuple(rest[1:]))
    if program.split("/")[-1] != "python" or not rest:
        raise ValueError(f"{shlex.join(words)}: nobody knows this command")
    if rest[0] == "-m" and rest[1] in FOREIGN_MODULES:
        return None
    if rest[0] == "-m" and rest[1] == "focalcache":
        return Ours(CONSOLE[rest[2]], tuple(rest[3:]))
    if rest[0] == "-m":
        return Ours(MODULES[rest[1]], tuple(rest[2:]))
    if rest[0] not in SCRIPTS:
        if not (ROOT / rest[0]).is_file():
            raise ValueError(f"{rest[0]}: no such script")
        return None
    return Ours(SCRIPTS[rest[0]], tuple(rest[1:]))


class Parsed(Exception):
    """Raised in place of the work, with the arguments."""


def parse(command: Ours, monkeypatch) -> argparse.Namespace | None:
    """The arguments, by the command's own parser; None where it only prints help.

    Raises ValueError with what the parser says when it does not take them.
    """
    real: Callable = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *args: object, **options: object) -> None:
        raise Parsed(real(self, *args, **options))

    def complain(self: argparse.ArgumentParser, message: str) -> None:
        raise ValueError(f"{command.module} {shlex.join(command.argv)}: {message}")

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(argparse.ArgumentParser, "error", complain)
        try:
            import_module(command.module).main(list(command.argv))
        except Parsed as parsed:
            return parsed.args[0]
        except SystemExit as done:
            if done.code != 0:
                raise
            return None
    raise AssertionError(f"{command.module} parsed nothing")
