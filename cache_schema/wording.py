"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Such as "1 scene" and "28,130 samples"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
