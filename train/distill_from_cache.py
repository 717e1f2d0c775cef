"""Train a student with the teacher's features and predictions out of a store.

Example:
    python train/distill_from_cache.py configs/demo/distill_fd3d.py --cache teacher.zarr \\
        --dataroot data/nuscenes --version v1.0-trainval --work-dir work/student

Several GPUs or nodes: torchrun --nproc-per-node 8 train/distill_from_cache.py …
A run that was stopped or killed goes on with the same command and --resume, to the same weights.
"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    from train.engine.options import add_arguments, options_of, printed_config

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="one of configs/distill, or configs/demo/distill_fd3d.py")
    add_arguments(parser)
    parser.add_argument("--cache", help="the store: a folder, or s3://bucket/prefix")
    parser.add_argument(
        "--expect-digest",
        metavar="HEX",
        help="insist on the store with this digest, 12 digits or more (inspect_cache.py info prints it)",
    )
    parser.add_argument(
        "--allow-partial", action="store_true", help="train on the scenes that the store holds"
    )
    parser.add_argument(
        "--teacher-source",
        default="cache",
        choices=("cache", "live", "live_fd"),
        help="cache (default); to compare: live, the teacher in every step as it was cached; live_fd, on the"
        " student's distorted images, as released",
    )
    parser.add_argument(
        "--teacher-checkpoint", help="of a live teacher; with a cache: insist on a store of these weights"
    )
    args = parser.parse_args(argv)
    from cache_schema.errors import CacheError
    from camera3d.devices import is_first_process, tells
    from camera3d.errors import Camera3DError
    from train.engine.run import DistillOptions, distill

    try:
        if args.print_config:
            return printed_config(args)
        shared = vars(options_of(args))
        names = ("cache", "expect_digest", "allow_partial", "teacher_source")
        own = {name: getattr(args, name) for name in names}
        weights = distill(DistillOptions(**shared, **own, teacher_checkpoint=args.teacher_checkpoint))
    except (CacheError, Camera3DError) as error:
        if tells(error):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if is_first_process():
        print(weights)
    return 0


if __name__ == "__main__":
    sys.exit(main())
