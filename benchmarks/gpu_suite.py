"""Everything that a machine with one GPU can tell about this project, most valuable first.

    python benchmarks/gpu_suite.py --out work/gpu --minutes 9
    python benchmarks/gpu_suite.py --out work/gpu-2 --resume work/gpu

Every stage runs in a process of its own, with a limit, and leaves STAGE.json and STAGE.log in --out;
report.md is written anew after each. What a run had no time for, or what went wrong, the next one does with
--resume. It fetches nothing: scenes are generated, weights are random. --dry-run does all of it in small on a
CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from gpu_stages import STAGES, Context, Stage
from gpu_stages.launch import forked, run_stage, started
from gpu_stages.records import Result, ResultInvalid, read_result
from gpu_stages.report import report

ROOT = Path(__file__).parent.parent
TASK = "FOCALCACHE_GPU_STAGE"  # what the process of a stage is told
LEAST_S = 15.0  # a stage that has less is not begun
NAMES = tuple(stage.name for stage in STAGES)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    if args.stage:
        return _child(args.stage)
    if args.list:
        _list()
        return 0
    chosen = [stage for stage in STAGES if not args.only or stage.name in args.only]
    before = signal.signal(signal.SIGTERM, _interrupt)
    work = Path(args.work or tempfile.mkdtemp(prefix="focalcache-gpu-")).resolve()
    try:
        kept = _taken_over(args, chosen)
        _prepare(args)
        work.mkdir(parents=True, exist_ok=True)
        results = _run(args, chosen, kept, work)
    except ResultInvalid as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; go on with --resume {args.out}", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
        if not args.work:
            shutil.rmtree(work, ignore_errors=True)
    print(args.out / "report.md")
    return int(not all(result.sound for result in results) or len(results) < len(chosen))


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder for results and logs")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all of it (default 9)")
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="take over what this folder has; may be --out itself"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="STAGE", help=", ".join(NAMES))
    parser.add_argument("--dry-run", action="store_true", help="every stage in small, on the CPU")
    parser.add_argument("--list", action="store_true", help="print the stages with their minutes, and end")
    parser.add_argument("--dataroot", help="nuScenes, in place of generated scenes; with --version, --split")
    parser.add_argument("--version", help="such as v1.0-mini")
    parser.add_argument("--split", help="such as mini_train: a few scenes are enough")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="for scenes, weights and stores, some 30 GB; kept for the next run (default: a temporary one)",
    )
    parser.add_argument("--stage", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.stage or args.list:
        return args
    if args.out is None:
        parser.error("--out: name the folder for the results")
    data = (args.dataroot, args.version, args.split)
    if any(data) and not all(data):
        parser.error("--dataroot, --version and --split go together")
    if args.dry_run and any(data):
        parser.error("--dry-run generates its own small scenes: leave --dataroot out")
    if args.minutes <= 0:
        parser.error(f"--minutes {args.minutes:g}: expected more than 0")
    if not args.dry_run and not _has_gpu():
        parser.error("torch sees no CUDA device here; --dry-run does every stage in small on the CPU")
    return args


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _list() -> None:
    for stage in STAGES:
        print(f"{stage.name:<12} {stage.minutes:4.1f} min  {stage.title}")
    print(f"{'':<12} {sum(stage.minutes for stage in STAGES):4.1f} min  expected on one H100")


def _taken_over(args: argparse.Namespace, chosen: list[Stage]) -> dict[str, Result]:
    """Results of an earlier run, by stage. Raises ResultInvalid when there are some and nobody asked."""
    here = [name for name in NAMES if (args.out / f"{name}.json").exists()]
    if here and (args.resume is None or args.resume.resolve() != args.out.resolve()):
        raise ResultInvalid(
            f"{args.out} has results already ({', '.join(here)}): give another --out, or go on with"
            f" --resume {args.out}"
        )
    if args.resume is None:
        return {}
    if not args.resume.is_dir():
        raise ResultInvalid(f"--resume {args.resume}: there is no such folder")
    found = {stage.name: read_result(args.resume, stage.name) for stage in chosen}
    kept = {name: result for name, result in found.items() if result is not None}
    other = [name for name, result in kept.items() if result.tiny != args.dry_run]
    if other:
        kind = "a dry run" if kept[other[0]].tiny else "a run on a GPU"
        raise ResultInvalid(f"{args.resume}: {', '.join(other)} is of {kind}, this one is not")
    return kept


def _prepare(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # What libraries have to say about their future is not for these logs.
    os.environ.setdefault("PYTHONWARNINGS", "ignore")


def _run(args: argparse.Namespace, chosen: list[Stage], kept: dict[str, Result], work: Path) -> list[Result]:
    """All stages there is time for; the report is written after each."""
    begin = time.monotonic()
    end = begin + 60 * args.minutes
    context = Context(
        out=args.out.resolve(),
        work=work,
        tiny=args.dry_run,
        dataroot=args.dataroot and str(Path(args.dataroot).resolve()),
        version=args.version,
        split=args.split,
        deadline=time.time() + 60 * args.minutes,
    )
    results, left_out = dict(kept), {}
    for result in kept.values():
        result.write(context.out)
    start = _imported() if args.dry_run else started
    for number, stage in enumerate(chosen, start=1):
        place = f"[{number}/{len(chosen)}] {stage.name}"
        if stage.name in kept and kept[stage.name].sound:
            _say(f"{place}: taken over from {args.resume}")
            continue
        left = end - time.monotonic()
        if left < LEAST_S:
            left_out[stage.name] = "no time left"
            _say(f"{place}: no time left, --resume {args.out} does it")
            _write_report(chosen, results, left_out, context.out)
            continue
        ahead = 60 * sum(s.minutes for s in chosen[number - 1 :] if not _is_sound(kept.get(s.name)))
        eta = "" if args.dry_run else f", all in {min(ahead, left) / 60:.1f} min of the {left / 60:.1f} left"
        _say(f"{place}: {stage.title}, some {stage.minutes:g} min{eta}")
        earlier = [row for row in kept[stage.name].rows if "error" not in row] if stage.name in kept else []
        limit = min(60 * stage.limit, left)
        results[stage.name] = run_stage(
            stage, context, limit_s=limit, earlier=earlier, start=start, say=lambda text: _say(f"    {text}")
        )
        results[stage.name].write(context.out)
        _write_report(chosen, results, left_out, context.out)
        ended = results[stage.name]
        wrong = f", {ended.faults} measurements went wrong" if ended.faults else ""
        _say(f"{place}: {ended.status} in {ended.seconds:.0f} s{wrong} {ended.fault}")
    _write_report(chosen, results, left_out, context.out)
    _say(f"{(time.monotonic() - begin) / 60:.1f} min")
    return list(results.values())


def _is_sound(result: Result | None) -> bool:
    return result is not None and result.sound


def _imported():
    """For a dry run: with all imports done once, before the stages fork off."""
    import importlib

    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for stage in STAGES:
        importlib.import_module(f"gpu_stages.{stage.module}")
    return forked


def _write_report(
    chosen: list[Stage], results: dict[str, Result], left_out: dict[str, str], out: Path
) -> None:
    partial = out / ".report.md.partial"
    partial.write_text(report(chosen, list(results.values()), left_out=left_out))
    os.replace(partial, out / "report.md")


def _child(name: str) -> int:
    from gpu_stages.child import Journal, run

    task = json.loads(os.environ[TASK])
    context = Context.from_json(task["context"])
    stage = next(stage for stage in STAGES if stage.name == name)
    return run(stage, context, Journal(Path(task["journal"])), task["done"])


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
