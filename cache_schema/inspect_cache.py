"""Look at a store of teacher features: what it is, whether it is whole, what is in it, what one would cost.

Example:
    python cache_schema/inspect_cache.py info teacher.zarr
"""

import argparse
import json
import sys
from pathlib import Path

EXAMPLES = {
    "info": "info teacher.zarr --json",
    "show": "show teacher.zarr ca9a282c9e77460f8360f564131a8af5 --png frame.png --dataroot data/nuscenes",
    "tokens": "tokens teacher.zarr",
    "report": "report teacher.zarr --out report.html --dataroot data/nuscenes",
    "verify": "verify teacher.zarr --jobs 4",
    "diff": "diff teacher.zarr other.zarr --tolerance 0.001",
    "plan": "plan configs/demo/teacher.py --version v1.0-trainval --split train --profile compact --fps 5",
}


def parse(argv: list[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="|".join(EXAMPLES))

    def command(name: str, sentence: str) -> argparse.ArgumentParser:
        example = f"python cache_schema/inspect_cache.py {EXAMPLES[name]}"
        return commands.add_parser(
            name, help=sentence, description=f"{sentence}\n\nExample:\n    {example}", formatter_class=raw
        )

    info = command("info", "What a store is: teacher, dataset, scenes, bytes by array.")
    info.add_argument("store", help="folder of the store, or s3://bucket/prefix")
    info.add_argument("--json", action="store_true", help="the same as JSON, with every scene")

    tokens = command("tokens", "The scenes of a store with their sample tokens: what show can be asked for.")
    tokens.add_argument("store", help="folder of the store, or s3://bucket/prefix")
    tokens.add_argument("--json", action="store_true", help="the same as JSON, tokens by scene")

    show = command("show", "Statistics of one sample, and a picture of it.")
    show.add_argument("store", help="folder of the store, or s3://bucket/prefix")
    show.add_argument("sample_token", help="the sample, as the dataset calls it")
    show.add_argument(
        "--png", type=Path, metavar="FILE", help="draw maps, boxes and focal areas (matplotlib)"
    )
    show.add_argument(
        "--dataroot", type=Path, help="folder of the dataset: draw its images and its ground truth too"
    )
    show.add_argument("--min-score", type=float, default=0.3, help="of boxes that are drawn (default 0.3)")
    show.add_argument(
        "--layer", metavar="NAME", help="queries and boxes of this layer, where the layer has them"
    )

    report = command("report", "One HTML page of a store: facts, health, samples with boxes, histograms.")
    report.add_argument("store", help="folder of the store, or s3://bucket/prefix")
    report.add_argument(
        "--out", type=Path, metavar="FILE", default=Path("report.html"), help="default report.html"
    )
    report.add_argument("--dataroot", type=Path, help="folder of the dataset: its images and ground truth")
    report.add_argument("--samples", type=positive(int), default=12, help="samples to show (default 12)")
    report.add_argument(
        "--min-score", type=share, default=0.3, help="where the threshold stands at first (default 0.3)"
    )
    report.add_argument("--skip-verify", action="store_true", help="do not read all bytes, for a large store")
    report.add_argument(
        "--jobs", type=positive(int), default=1, help="processes that verify the store (default 1)"
    )

    verify = command(
        "verify", "Read everything against the checksums; exit 1 and a list when something is wrong."
    )
    verify.add_argument("store", help="folder of the store, or s3://bucket/prefix")
    verify.add_argument("--jobs", type=positive(int), default=1, help="processes that read (default 1)")
    verify.add_argument(
        "--repair",
        action="store_true",
        help="take damaged scenes out, so that the next dump redoes only those",
    )

    diff = command("diff", "How far apart two stores are, over the samples that both have.")
    diff.add_argument("store", help="the store that counts as right: a folder, or s3://bucket/prefix")
    diff.add_argument("other", help="the store that is compared with it")
    diff.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="exit 1 when a value is off by more than this share of its array's largest (default 0)",
    )

    plan = command("plan", "What a dump would cost, before spending anything.")
    plan.add_argument("config", type=Path, help="config of the teacher, e.g. configs/demo/teacher.py")
    plan.add_argument("--version", required=True, help="v1.0-mini, v1.0-trainval or v1.0-test")
    plan.add_argument("--split", required=True, help="an official split of that version")
    plan.add_argument("--profile", required=True, help="how the arrays are stored: exact, compact or focal")
    plan.add_argument(
        "--arrays", default="bev,pv,queries", help="comma-separated groups to store (default bev,pv,queries)"
    )
    plan.add_argument("--fps", type=positive(float), help="frames a second of the teacher on one device")
    plan.add_argument("--epochs", type=positive(int), default=24, help="of each distillation (default 24)")
    plan.add_argument(
        "--gpus", type=positive(int), default=1, help="devices that run the teacher (default 1)"
    )
    plan.add_argument(
        "--read-gb-s",
        type=positive(float),
        default=2.0,
        help="gigabytes a second that the training reads from the store, all devices together (default 2)",
    )
    focal = plan.add_argument_group("assumptions about profile focal")
    focal.add_argument("--kept-cells", type=share, default=0.05, help="share of map cells (default 0.05)")
    focal.add_argument("--kept-queries", type=share, default=0.1, help="share of queries (default 0.1)")
    focal.add_argument("--background-block", type=positive(int), default=8, help="cells a side (default 8)")
    return parser.parse_args(argv)


def positive(kind: type) -> type:
    """An argparse type: a number of this kind above zero."""

    def convert(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return value

    convert.__name__ = f"number ({kind.__name__})"
    return convert


def share(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # After parsing: zarr takes a second to import, and --help should not.
    from cache_schema.errors import CacheError
    from cache_schema.inspection import commands
    from cache_schema.stdout import tell

    try:
        text, code = commands.BY_NAME[args.command](args)
    except CacheError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    tell(json.dumps(text, indent=1) if isinstance(text, dict) else text)
    return code


if __name__ == "__main__":
    sys.exit(main())
