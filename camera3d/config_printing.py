"""`--print-config` of the commands: the config as it is once its bases and overrides are merged."""

from __future__ import annotations

import argparse
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


def config_text(config: str, overrides: Mapping[str, object] | None = None) -> str:
    """A config as it is printed. Raises ConfigInvalid."""
    from camera3d.detectors.builder import load_config

    return load_config(config, overrides).pretty_text.rstrip("\n")
