"""Train a detector on the ground truth: a teacher, or a student alone.

Example:
    python train/train_detector.py configs/demo/student.py --dataroot data/nuscenes \\
        --version v1.0-trainval --work-dir work/student

Several GPUs or nodes: torchrun --nproc-per-node 8 train/train_detector.py …
A run that was stopped or killed continues with the same command and --resume, and ends with the same weights.
"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    from train.engine.options import add_arguments, options_of, printed_config

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="one of configs/student, or configs/demo/student.py")
    add_arguments(parser)
    args = parser.parse_args(argv)
    from cache_schema.stdout import tell
    from camera3d.devices import is_first_process, tells
    from camera3d.errors import Camera3DError
    from train.engine.run import train_detector

    try:
        if args.print_config:
            tell(printed_config(args))
            return 0
        weights = train_detector(options_of(args))
    except Camera3DError as error:
        if tells(error):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if is_first_process():
        tell(str(weights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
