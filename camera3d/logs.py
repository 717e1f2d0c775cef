"""What mmengine logs, and where: results go to stdout, all else to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

CLOCK = "%H:%M:%S"
CLOCK_WIDTH = len("12:00:00 ")
NOISE = (
    "Hooks will be executed",
    "Dataset ",
    "Checkpoints will be saved",
    "Load checkpoint from",
    "Loads checkpoint by",
    "resumed epoch",
    "Exp name",
    "Distributed training is not used",
    '"FileClient" will be deprecated',
    "The prefix is not set",
)


class CurrentStderr:
    """Whatever is sys.stderr when something is written: a logger lives longer than a replaced stream."""

    def write(self, text: str) -> int:
        """See io.TextIOBase."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """See io.TextIOBase."""
        sys.stderr.flush()


class TerminalFormatter(logging.Formatter):
    """The time of day and the message; and how bad it is, when it is."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        return f"{self.formatTime(record, CLOCK)} {level}{record.getMessage()}"


def without_noise(record: logging.LogRecord) -> bool:
    """Whether a record is worth showing: mmengine tells much about itself."""
    return not record.getMessage().startswith(NOISE)


def to_stderr(logger: logging.Logger) -> None:
    """What a logger writes to the terminal goes to stderr from now on, shortly: results go to stdout."""
    for handler in logger.handlers:
        handler.addFilter(without_noise)
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(CurrentStderr())
            handler.setFormatter(TerminalFormatter())


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
