"""Which samples a store holds: its scenes with their tokens, for `show`."""

from collections.abc import Mapping

from cache_schema.errors import printable
from cache_schema.reader import TargetReader
from cache_schema.storage import StorePath


def scene_tokens(path: StorePath) -> dict[str, list[str]]:
    """Sample tokens in time order, by scene; scenes sorted by name. Raises CacheError."""
    return {name: list(tokens) for name, tokens in TargetReader(path).scenes.items()}


def as_text(scenes: Mapping[str, list[str]]) -> str:
    """One line a sample: scene and token, so that other commands can read it."""
    lines = [f"{name}  {printable(token)}" for name, tokens in scenes.items() for token in tokens]
    return "\n".join(lines) or "no scene is published yet"
