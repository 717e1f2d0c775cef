"""Score a detector with the official evaluation: nuScenes' NDS, mAP and errors, or COCO's mAP.

Example:
    python train/evaluate.py configs/demo/student.py --checkpoint student/last.pth \\
        --dataroot data/nuscenes --version v1.0-trainval --split val --out student/val

The teacher's own score, replayed from the detections in its store; and that of a results JSON:
    python train/evaluate.py --from-cache teacher.zarr \\
        --dataroot data/nuscenes --version v1.0-trainval --split val
    python train/evaluate.py --results results_nusc.json \\
        --dataroot data/nuscenes --version v1.0-trainval --split val

Several GPUs share the scenes:
    torchrun --nproc-per-node 8 train/evaluate.py …
"""

from __future__ import annotations

import argparse
import sys
import warnings


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "config", nargs="?", help="config of a detector, one of configs/student, or configs/demo/student.py"
    )
    parser.add_argument("--checkpoint", help="its weights, loaded strictly")
    parser.add_argument("--from-cache", metavar="STORE", help="evaluate the teacher that dumped this store")
    parser.add_argument(
        "--layer", metavar="NAME", help="with --from-cache: evaluate the head that made this layer instead"
    )
    parser.add_argument(
        "--expect-digest",
        metavar="HEX",
        help="with --from-cache: insist on the store with this digest, 12 digits or more of it"
        " (inspect_cache.py info prints it)",
    )
    parser.add_argument(
        "--results", metavar="FILE", help="score a results JSON in the official format, nuScenes' or COCO's"
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
        "--out", metavar="DIR", help="leave the results JSON, metrics and precision-recall curves here"
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument("--workers", type=int, default=2, help="processes that read images ahead (default 2)")
    parser.add_argument(
        "--check-images",
        action="store_true",
        help="decode every image before the first frame, so that no damaged file stops a long evaluation",
    )
    parser.add_argument(
        "--max-gap-s", type=float, default=0.9, help="longest gap in seconds between keyframes (default 0.9)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    # After parsing: these imports take seconds, and --help should not.
    from cache_schema.errors import CacheError
    from cache_schema.stdout import tell
    from camera3d.devices import is_first_process, tells
    from camera3d.errors import Camera3DError
    from train.evaluation_run import EvaluationOptions, run_evaluation

    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    try:
        metrics = run_evaluation(EvaluationOptions(**vars(args)))
    except (CacheError, Camera3DError) as error:
        if tells(error):
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; nothing was scored", file=sys.stderr)
        return 130
    if is_first_process():
        tell(metrics.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
