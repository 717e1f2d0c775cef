"""Write a synthetic dataset in nuScenes' format: streets, traffic and people, drawn from a seed.

Example:
    python -m synthetic_nuscenes --out data/synthetic --scenes 20 --seconds 10 --image-size 450x800

The devkit and every command here read it as  --dataroot data/synthetic --version v1.0-synthetic  with
--split synthetic_train  or  synthetic_val.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

from camera3d.errors import Camera3DError
from synthetic_nuscenes.generate import generate
from synthetic_nuscenes.options import TRAIN_SPLIT, VAL_SPLIT, VERSION


def image_size(text: str) -> tuple[int, int]:
    """HEIGHTxWIDTH as two numbers."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 450x800")
    return int(match[1]), int(match[2])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m synthetic_nuscenes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, help="the dataroot to make, a new or empty folder")
    parser.add_argument("--scenes", type=int, default=20, help="how many scenes (default 20, at least 2)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a scene (default 10)")
    parser.add_argument(
        "--image-size",
        type=image_size,
        default=(900, 1600),
        metavar="HxW",
        help="of the images (default 900x1600)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default 0)")
    parser.add_argument("--val-share", type=float, default=0.2, help="share of val scenes (default 0.2)")
    parser.add_argument(
        "--density",
        type=float,
        default=1.0,
        help="how much traffic and how many people, 0.2 to 3 (default 1)",
    )
    parser.add_argument(
        "--coco",
        action="store_true",
        help="also annotate what each picture shows, in COCO's format, under the same splits and version",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=None,
        help="how many render (default: one a core); no effect on the result",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dataset; 2 when it cannot be made."""
    args = parse(argv)
    try:
        out = generate(
            args.out,
            scenes=args.scenes,
            seconds=args.seconds,
            image_hw=args.image_size,
            seed=args.seed,
            processes=args.processes,
            val_share=args.val_share,
            density=args.density,
            coco=args.coco,
        )
    except Camera3DError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    try:
        sys.stdout.write(f"dataroot {out}\nversion {VERSION}\nsplits {TRAIN_SPLIT}, {VAL_SPLIT}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
