"""The commands of inspect_cache.py: from parsed arguments to what is printed and the exit code.

Each returns a text, or a dict that is printed as JSON, and 0 or 1. Progress goes to stderr.
"""

from argparse import Namespace
from typing import Any

from tqdm import tqdm

from cache_schema.errors import NotOurs, NotWritable
from cache_schema.inspection.diff import as_text as difference_text
from cache_schema.inspection.diff import difference
from cache_schema.inspection.faults import Findings
from cache_schema.inspection.info import as_text, describe
from cache_schema.inspection.pictures import draw_sample
from cache_schema.inspection.plan import FocalShares, costs
from cache_schema.inspection.plan import as_text as plan_text
from cache_schema.inspection.repair import repair
from cache_schema.inspection.sample import load_sample, statistics
from cache_schema.inspection.tables import aligned, bytes_text
from cache_schema.inspection.verify import verify as verify_store
from cache_schema.storage import store_path
from cache_schema.store_plan import some
from cache_schema.wording import counted


def info(args: Namespace) -> tuple[str | dict[str, Any], int]:
    """What a store is."""
    store = store_path(args.store)
    facts = describe(store)
    return (facts if args.json else as_text(facts, store)), 0


def verify(args: Namespace) -> tuple[str, int]:
    """Whether a store is whole; with `--repair`, take out what is not."""
    with tqdm(desc="verify", unit="B", unit_scale=True, smoothing=0.1) as bar:

        def on_bytes(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        findings = verify_store(store_path(args.store), args.jobs, on_bytes)
    lines = [_summary(findings)]
    if findings.faults:
        lines += ["", f"{len(findings.faults)} faults:"]
        lines += aligned([(f"  {fault.path}", fault.what) for fault in findings.faults])
        lines += ["", *_what_to_do(args, findings)]
    return "\n".join(lines), 0 if findings.complete else 1


def show(args: Namespace) -> tuple[str, int]:
    """Statistics of a sample; with `--png`, a picture of it."""
    sample = load_sample(store_path(args.store), args.sample_token, args.min_score)
    text = statistics(sample)
    if args.png is not None:
        draw_sample(sample, args.png, args.dataroot)
        text += f"\n\npicture: {args.png}"
    return text, 0


def diff(args: Namespace) -> tuple[str, int]:
    """How far apart two stores are."""
    with tqdm(desc="diff", unit="sample", smoothing=0.1) as bar:

        def on_samples(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = difference(store_path(args.store), store_path(args.other), on_samples)
    return difference_text(found, args.tolerance), 0 if found.within(args.tolerance) else 1


def plan(args: Namespace) -> tuple[str, int]:
    """What a dump would cost."""
    shares = FocalShares(
        cells=args.kept_cells, queries=args.kept_queries, background_block=args.background_block
    )
    found = costs(
        args.config,
        version=args.version,
        split=args.split,
        profile=args.profile,
        groups=args.arrays.split(","),
        shares=shares,
        fps=args.fps,
        epochs=args.epochs,
        gpus=args.gpus,
        read_gb_s=args.read_gb_s,
    )
    return plan_text(found, profile=args.profile, fps=args.fps, gpus=args.gpus, shares=shares), 0


def _summary(findings: Findings) -> str:
    if findings.sealed:
        state = "sealed"
    elif findings.missing_scenes:
        state = f"unfinished, {counted(len(findings.missing_scenes), 'planned scene')} not there yet"
    else:
        state = "not sealed" + ("" if findings.planned else ", no plan says which scenes belong to it")
    rows = [
        (
            "read",
            f"{counted(findings.samples, 'sample')} in {counted(findings.scenes, 'scene')},"
            f" {bytes_text(findings.n_bytes)}",
        ),
        ("state", state),
        ("teacher head", "there" if findings.has_head else "none"),
    ]
    if findings.digest is not None:
        rows.append(("digest", findings.digest))
    if findings.left_behind:
        rows.append(
            ("left behind", f"{len(findings.left_behind)} parts of dumps that still run, or were killed")
        )
    if findings.aside:
        rows.append(("put aside", ", ".join(findings.aside)))
    if findings.complete:
        rows.append(("result", "every byte is as it was written"))
    elif not findings.faults:
        rows.append(("result", f"not all was read: there is no {some(findings.missing_scenes)}"))
    return "\n".join(aligned(rows))


def _what_to_do(args: Namespace, findings: Findings) -> list[str]:
    lines = []
    if args.repair:
        try:
            done = repair(store_path(args.store), findings)
        except (NotOurs, NotWritable) as error:
            return [str(error)]
        if done.taken_out:
            lines.append(f"taken out: {', '.join(done.taken_out)}")
            lines.append("Run the same dump again: it writes only these.")
        if done.aside:
            lines.append(f"put aside, because no dump wrote it, and left to you: {', '.join(done.aside)}")
    elif findings.damaged_parts:
        lines.append("Take damaged scenes out with --repair, then run the same dump again.")
    if any(fault.damage and not fault.part and fault.path.endswith("zarr.json") for fault in findings.faults):
        lines.append(
            "What the store says about itself is damaged: no repair can know it. Dump into a new store."
        )
    if any(not fault.damage for fault in findings.faults):
        lines.append("Files that do not belong there, or may not be read, are left to you.")
    return lines


BY_NAME = {"info": info, "show": show, "diff": diff, "plan": plan, "verify": verify}
