"""Train a query decoder on the BEV maps of a store, and add what its queries see to the store as a layer.

Example:
    python train/train_distillation_head.py configs/demo/head.py --cache teacher.zarr --layer head \\
        --dataroot data/nuscenes --version v1.0-trainval --work-dir work/head

No image and no weight of the teacher is needed. A distillation reads the layer when it names it:
    python train/distill_from_cache.py … --cache teacher.zarr --layer head
Several GPUs or nodes: torchrun --nproc-per-node 8 train/train_distillation_head.py …
A run that was stopped or killed continues with the same command and --resume, and ends with the same bytes.
"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    from train.engine.options import add_shared_arguments, options_of, printed_config

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="configs/demo/head.py, or configs/distill/*_head.py")
    parser.add_argument("--cache", required=True, help="the store: a folder, or s3://bucket/prefix")
    parser.add_argument("--layer", required=True, metavar="NAME", help="name of the layer in the store")
    add_shared_arguments(parser)
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.1,
        metavar="P",
        help="lowest score of a query that the layer keeps (default 0.1)",
    )
    parser.add_argument(
        "--threads", type=int, help="CPU threads of every process that writes the layer (default 4)"
    )
    parser.add_argument(
        "--expect-digest",
        metavar="HEX",
        help="insist on the store with this digest, 12 digits or more (inspect_cache.py info prints it)",
    )
    args = parser.parse_args(argv)
    from cache_schema.errors import CacheError
    from cache_schema.stdout import tell
    from camera3d.devices import is_first_process, tells
    from camera3d.errors import Camera3DError
    from train.engine.options import HeadOptions
    from train.engine.run import train_head

    try:
        if args.print_config:
            tell(printed_config(args))
            return 0
        own = {
            name: getattr(args, name) for name in ("cache", "layer", "min_score", "threads", "expect_digest")
        }
        layer = train_head(HeadOptions(**vars(options_of(args)), **own))
    except (CacheError, Camera3DError) as error:
        if tells(error):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if is_first_process():
        tell(str(layer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
