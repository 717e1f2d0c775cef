"""The result of a command, on stdout, for whoever reads it: a file, a terminal, or `head`."""

import os
import sys


def tell(text: str) -> None:
    """Print a result. A reader that has enough, as `head` has, is no error."""
    try:
        print(text, flush=True)  # noqa: T201  the one place that prints results
    except BrokenPipeError:
        # What is still buffered must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
