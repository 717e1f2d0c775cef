"""`--print-config` of the commands: the config as it is once its bases and overrides are merged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence


class _PrintConfig(argparse.Action):
    """A switch after which no other option is required, as with --help."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence | None,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, True)
        for action in parser._actions:
            action.required = action.required and not action.option_strings
        for group in parser._mutually_exclusive_groups:
            group.required = False


def add_print_config(parser: argparse.ArgumentParser) -> None:
    """The switch `--print-config`."""
    parser.add_argument(
        "--print-config",
        action=_PrintConfig,
        nargs=0,
        default=False,
        help="print the config with its bases and overrides merged, and do nothing else",
    )


def print_config(config: str, overrides: Mapping[str, object] | None = None) -> int:
    """Check a config and print it to stdout; returns the command's exit code."""
    from camera3d.detectors.builder import load_config
    from camera3d.errors import Camera3DError

    try:
        sys.stdout.write(load_config(config, overrides).pretty_text)
    except Camera3DError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0
