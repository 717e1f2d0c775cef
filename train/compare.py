"""Several runs on one page: losses, scores, average precision by class, curves and the same held-out frames.

Example:
    python train/compare.py student-alone student-distilled --out compare.html \\
        --dataroot data/nuscenes --version v1.0-trainval

A run is the work folder of a training, the folder that evaluate.py --out left (of a teacher's store too), a
results JSON, or a store. Without --dataroot the page has no frames. It needs neither torch nor a GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="at most eight; each has its colour")
    parser.add_argument(
        "--names", nargs="+", metavar="NAME", help="what the page calls them (default: their folders' names)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", default=Path("compare.html"), help="default compare.html"
    )
    parser.add_argument("--dataroot", type=Path, help="folder of the dataset: its images and ground truth")
    parser.add_argument("--version", help="with --dataroot, its nuScenes version: v1.0-mini, v1.0-trainval")
    parser.add_argument("--frames", type=int, default=8, help="frames to show (default 8)")
    args = parser.parse_args(argv)
    if args.names is not None and len(args.names) != len(args.runs):
        parser.error(
            f"--names: {len(args.names)} names for {len(args.runs)} runs; put the runs before the options"
        )
    if (args.dataroot is None) != (args.version is None):
        parser.error("--dataroot and --version belong together: give both, or none of them")
    if args.frames < 1:
        parser.error(f"--frames {args.frames}: must be 1 or more")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # After parsing, so that --help does not wait for numpy and zarr.
    from tqdm import tqdm

    from cache_schema.errors import CacheError
    from cache_schema.inspection.tables import bytes_text
    from cache_schema.stdout import tell
    from train.comparison.build import write_comparison

    try:
        n_bytes = write_comparison(
            args.runs,
            args.out,
            names=args.names,
            dataroot=args.dataroot,
            version=args.version,
            n_frames=args.frames,
            progress=lambda tokens: tqdm(tokens, desc="compare", unit="frame"),
        )
    except CacheError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    tell(f"page: {args.out}, {bytes_text(n_bytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
