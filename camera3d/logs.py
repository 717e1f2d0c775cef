"""What mmengine logs, and where: results go to stdout, all else to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


class CurrentStderr:
    """Whatever is sys.stderr when something is written: a logger lives longer than a replaced stream."""

    def write(self, text: str) -> int:
        """See io.TextIOBase."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """See io.TextIOBase."""
        sys.stderr.flush()


def to_stderr(logger: logging.Logger) -> None:
    """What a logger writes to the terminal goes to stderr from now on: results go to stdout."""
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(CurrentStderr())


@contextmanager
def quiet_mmengine() -> Iterator[None]:
    """Errors only, where mmengine would tell about every parameter."""
    logger = MMLogger.get_current_instance()
    to_stderr(logger)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
