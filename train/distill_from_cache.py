"""Train a student on a teacher's features and predictions from a store.

Example:
    python train/distill_from_cache.py configs/demo/distill_fd3d.py --cache teacher.zarr \\
        --dataroot data/nuscenes --version v1.0-trainval --work-dir work/student

Several GPUs or nodes: torchrun --nproc-per-node 8 train/distill_from_cache.py …
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
    parser.add_argument("config", help="one of configs/distill, or configs/demo/distill_fd3d.py")
    add_arguments(parser)
    parser.add_argument("--cache", help="the store: a folder, or s3://bucket/prefix")
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="read queries and detections of this layer of the store, which train_distillation_head.py made"
        " (default: the config's cache_layer, or none)",
    )
    parser.add_argument(
        "--expect-digest",
        metavar="HEX",
        help="insist on the store with this digest, 12 digits or more (inspect_cache.py info prints it)",
    )
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="train on the scenes that are in the store, where some are missing",
    )
    parser.add_argument(
        "--teacher-source",
        default="cache",
        choices=("cache", "live", "live_fd"),
        help="cache (default): the store; for comparison: live, run the teacher in every step on what was"
        " dumped; live_fd, run it on the student's distorted images, as the released code does",
    )
    parser.add_argument(
        "--teacher-checkpoint",
        help="weights of a live teacher; with a store: insist that it was dumped with these weights",
    )
    args = parser.parse_args(argv)
    from cache_schema.errors import CacheError
    from cache_schema.stdout import tell
    from camera3d.devices import is_first_process, tells
    from camera3d.errors import Camera3DError
    from train.engine.run import DistillOptions, distill

    try:
        if args.print_config:
            tell(printed_config(args))
            return 0
        shared = vars(options_of(args))
        names = ("cache", "layer", "expect_digest", "allow_partial", "teacher_source")
        own = {name: getattr(args, name) for name in names}
        weights = distill(DistillOptions(**shared, **own, teacher_checkpoint=args.teacher_checkpoint))
    except (CacheError, Camera3DError) as error:
        if tells(error):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if is_first_process():
        tell(str(weights))
    return 0


if __name__ == "__main__":
    sys.exit(main())
