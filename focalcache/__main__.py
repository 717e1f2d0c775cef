"""Keep a camera-only 3D teacher's features in Zarr stores and train students from them.

Example:
    focalcache dump teacher/bevformer_base.py --checkpoint bevformer_r101_dcn_24ep.pth \\
        --dataroot data/nuscenes --version v1.0-trainval --split train --out teacher.zarr --device cuda

A CONFIG is a file. One that is not there is looked up among the packaged configs, with or without the leading
configs/: teacher/bevformer_base.py and configs/teacher/bevformer_base.py both work outside a checkout.
Several GPUs: torchrun --nproc-per-node 8 -m focalcache dump …
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec


@dataclass(frozen=True)
class Command:
    """A command: the module whose `main` it runs, and one sentence about it."""

    module: str
    sentence: str


COMMANDS = {
    "dump": Command("extract.dump_teacher", "Run a teacher once over a split and store what it gives."),
    "distil": Command("train.distill_from_cache", "Train a student from a store."),
    "head": Command("train.train_distillation_head", "Train a query decoder on a store, as a layer of it."),
    "train": Command("train.train_detector", "Train a detector on the ground truth."),
    "evaluate": Command("train.evaluate", "Score a detector, a store's teacher or a results file."),
    "compare": Command("train.compare", "Compare runs on one page."),
    "inspect": Command("cache_schema.inspect_cache", "Look at a store, or plan one. Needs no PyTorch."),
    "synth": Command("synthetic_nuscenes.__main__", "Write synthetic scenes in nuScenes' format."),
    "demo": Command("demo.__main__", "Run all of it in small."),
}


def parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<10}{command.sentence}" for name, command in COMMANDS.items())
    made = argparse.ArgumentParser(
        prog="focalcache",
        description=f"{__doc__}\ncommands, each with a --help of its own:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("command", choices=COMMANDS, metavar="|".join(COMMANDS))
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="of that command")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen command; only its own modules are imported."""
    args = parser().parse_args(argv)
    # The command takes its arguments, and the name in its usage line, from here.
    sys.argv = [f"focalcache {args.command}", *args.arguments]
    try:
        return import_module(COMMANDS[args.command].module).main()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or find_spec(package) is not None:
            raise
        sys.stderr.write(
            f"focalcache {args.command} needs {package}, which is not installed:"
            " pip install 'focalcache[all]', or make setup in a clone\n"
        )
        return 2


if __name__ == "__main__":
    sys.exit(main())
