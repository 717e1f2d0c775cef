"""Run a teacher once over a split and store its features and predictions.

Example:
    python extract/dump_teacher.py configs/demo/teacher.py --checkpoint configs/demo/teacher.pth \\
        --dataroot data/nuscenes --version v1.0-trainval --split train --out teacher.zarr --device cuda

A dump that was stopped or killed continues with the same command. Several processes share the work:
    torchrun --nproc-per-node 8 extract/dump_teacher.py …
    python extract/dump_teacher.py … --shard 1/4    and 2/4, 3/4, 4/4 elsewhere
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import warnings
from collections.abc import Sequence

from camera3d.config_printing import add_print_config, config_text


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config", help="config of the teacher, one of configs/teacher, or configs/demo/teacher.py"
    )
    parser.add_argument(
        "--dataroot",
        required=True,
        help="folder with samples/, maps/ and the version's tables, or in COCO's format",
    )
    parser.add_argument(
        "--version",
        required=True,
        help="v1.0-mini, v1.0-trainval, v1.0-test, or of a COCO-format folder such as 2017",
    )
    parser.add_argument(
        "--split", required=True, help="a split of that version, such as train, or one of splits.json"
    )
    parser.add_argument(
        "--out", required=True, help="the store to write, e.g. teacher.zarr or s3://bucket/teacher.zarr"
    )
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--checkpoint", help="the teacher's weights, loaded strictly")
    weights.add_argument("--untrained", action="store_true", help="take random weights; the store says so")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random weights of --untrained (default 0)"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument(
        "--arrays", default="bev,pv,queries", help="comma-separated groups to store (default bev,pv,queries)"
    )
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="add those of the arrays that the finished store at --out lacks, as a layer of this name",
    )
    parser.add_argument(
        "--profile",
        choices=("exact", "compact", "focal"),
        default="exact",
        help="how maps are stored: as float16 (default), as int8, or as int8 around the instances only",
    )
    parser.add_argument(
        "--focal-min-score",
        type=float,
        default=0.1,
        metavar="P",
        help="profile focal: lowest score of a detection that counts and of a query that is kept"
        " (default 0.1)",
    )
    parser.add_argument(
        "--focal-margins",
        type=margins,
        default=(1.5, 1.0),
        metavar="BEV,PV",
        help="profile focal: how much is kept around an instance: metres on the BEV map, cells of the image"
        " maps (default 1.5,1)",
    )
    parser.add_argument("--scenes", nargs="+", metavar="NAME", help="only these scenes of the split")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images ahead (default 2)")
    parser.add_argument(
        "--check-images",
        action="store_true",
        help="decode every image before the first scene, so that no damaged file stops a long dump",
    )
    parser.add_argument("--threads", type=int, help="CPU threads of every process (default 4)")
    parser.add_argument(
        "--shard", metavar="I/N", help="dump part I of N, counted from 1; others dump the other parts"
    )
    parser.add_argument(
        "--max-gap-s",
        type=float,
        default=0.9,
        help="longest gap in seconds between keyframes of a scene (default 0.9)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check everything, print what would be done, and write nothing"
    )
    add_print_config(parser)
    return parser.parse_args(argv)


def margins(text: str) -> tuple[float, float]:
    """Metres and cells, such as "1.5,1"."""
    values = tuple(float(part) for part in text.split(","))
    if len(values) != 2 or not all(0 <= value < 1000 for value in values):
        raise argparse.ArgumentTypeError(f"expected BEV,PV in metres and cells, such as 1.5,1; got {text}")
    return values


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # After parsing: these imports take seconds, and --help should not.
    from cache_schema.errors import CacheError, NotWritable
    from cache_schema.layers import layer_path
    from cache_schema.stdout import tell
    from cache_schema.storage import store_path
    from camera3d.errors import Camera3DError, DataWorkerDied, ImagesBroken
    from extract.dry_run import dry_run
    from extract.focal_areas import FocalOptions
    from extract.interrupt import EXIT_CODE, stop_on_signals
    from extract.report import summary
    from extract.run import DumpOptions, run_dump

    resume = f"Resume with:  {command_line(sys.argv[1:] if argv is None else argv)}"
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    options = {n: v for n, v in vars(args).items() if n not in ("untrained", "dry_run", "print_config")}
    options["arrays"] = tuple(args.arrays.split(","))
    bev_margin, pv_margin = options.pop("focal_margins")
    options["focal"] = FocalOptions(
        min_score=options.pop("focal_min_score"), bev_margin_m=bev_margin, pv_margin_cells=pv_margin
    )
    try:
        if args.print_config:
            tell(config_text(args.config))
            return 0
        with stop_on_signals():
            if args.dry_run:
                tell(dry_run(DumpOptions(**options)))
                return 0
            report, spec = run_dump(DumpOptions(**options))
    except KeyboardInterrupt as stop:
        print(f"stopped ({stop}); published scenes are kept.\n{resume}", file=sys.stderr)
        return EXIT_CODE
    except (CacheError, Camera3DError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if isinstance(error, NotWritable | DataWorkerDied | ImagesBroken) and not args.dry_run:
            print(resume, file=sys.stderr)
        return 2
    store = store_path(args.out)
    tell(summary(report, spec, store if args.layer is None else layer_path(store, args.layer)))
    return 0


def command_line(argv: Sequence[str]) -> str:
    """This command, to be pasted into a shell. Any number of processes may continue a dump."""
    processes = os.environ.get("LOCAL_WORLD_SIZE")
    packaged = os.path.basename(sys.argv[0]) == "focalcache dump"
    if processes:
        launcher = ["torchrun", "--nproc-per-node", processes]
        command = ["-m", "focalcache", "dump"] if packaged else ["extract/dump_teacher.py"]
    else:
        launcher = []
        command = ["focalcache", "dump"] if packaged else ["python", "extract/dump_teacher.py"]
    return shlex.join([*launcher, *command, *argv])


if __name__ == "__main__":
    sys.exit(main())
