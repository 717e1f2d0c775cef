"""What mmengine logs, and where."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger


def to_stderr(logger: logging.Logger) -> None:
    """What a logger writes to stdout goes to stderr from now on."""
    for handler in logger.handlers:
        if getattr(handler, "stream", None) is sys.stdout:
            handler.setStream(sys.stderr)


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
