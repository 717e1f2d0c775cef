"""The commands of inspect_cache.py: from parsed arguments to what is printed and the exit code.

Each returns a text, or a dict that is printed as JSON, and 0 or 1. Progress goes to stderr.
"""

from argparse import Namespace
from typing import Any

from tqdm import tqdm

from cache_schema.errors import NotOurs, NotWritable
from cache_schema.inspection.diff import as_text as difference_text
from cache_schema.inspection.diff import difference
from cache_schema.inspection.faults import Findings, summary_rows
from cache_schema.inspection.info import as_text, describe
from cache_schema.inspection.pictures import draw_sample
from cache_schema.inspection.plan import FocalShares, costs
from cache_schema.inspection.plan import as_text as plan_text
from cache_schema.inspection.repair import repair
from cache_schema.inspection.report.build import write_report
from cache_schema.inspection.sample import load_sample, statistics
from cache_schema.inspection.tables import aligned, bytes_text
from cache_schema.inspection.tokens import as_text as tokens_text
from cache_schema.inspection.tokens import scene_tokens
from cache_schema.inspection.verify import verify as verify_store
from cache_schema.layers import layer_path
from cache_schema.storage import StorePath, store_path
from cache_schema.wording import counted


def info(args: Namespace) -> tuple[str | dict[str, Any], int]:
    """What a store is."""
    store = store_path(args.store)
    facts = describe(store)
    return (facts if args.json else as_text(facts, store)), 0


def verify(args: Namespace) -> tuple[str, int]:
    """Whether a store is whole; with `--repair`, take out what is not."""
    findings = _verified(store_path(args.store), args.jobs)
    lines = ["\n".join(aligned(summary_rows(findings)))]
    faults = findings.all_faults()
    if faults:
        lines += ["", f"{counted(len(faults), 'fault')}:"]
        lines += aligned([(f"  {fault.path}", fault.what) for fault in faults])
        store = store_path(args.store)
        lines += ["", *_what_to_do(args, store, findings, "the same dump")]
        for name, layer in findings.layers.items():
            lines += _what_to_do(args, layer_path(store, name), layer, f"what writes layer {name}")
    return "\n".join(lines), 0 if findings.complete else 1


def tokens(args: Namespace) -> tuple[str | dict[str, Any], int]:
    """What can be shown."""
    found = scene_tokens(store_path(args.store))
    return ({"scenes": found} if args.json else tokens_text(found)), 0


def report(args: Namespace) -> tuple[str, int]:
    """A page to look at."""
    store = store_path(args.store)
    n_bytes, findings = write_report(
        store,
        args.out,
        verify=None if args.skip_verify else lambda: _verified(store, args.jobs),
        dataroot=args.dataroot,
        n_samples=args.samples,
        min_score=args.min_score,
        progress=lambda tokens: tqdm(tokens, desc="report", unit="sample"),
    )
    text = f"page: {args.out}, {bytes_text(n_bytes)}"
    if findings is None or findings.complete:
        return text, 0
    faults = findings.all_faults()
    found = counted(len(faults), "fault") if faults else "scenes are missing"
    return f"{text}\nThe store is not whole, {found}: see the page, or run verify.", 1


def show(args: Namespace) -> tuple[str, int]:
    """Statistics of a sample; with `--png`, a picture of it."""
    sample = load_sample(store_path(args.store), args.sample_token, args.min_score, args.layer)
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


def _verified(store: StorePath, jobs: int) -> Findings:
    with tqdm(desc="verify", unit="B", unit_scale=True, smoothing=0.1) as bar:

        def on_bytes(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return verify_store(store, jobs, on_bytes)


def _what_to_do(args: Namespace, store: StorePath, findings: Findings, dump: str) -> list[str]:
    """Of a store or a layer; `dump` says what would write it again."""
    lines = []
    if args.repair:
        try:
            done = repair(store, findings)
        except (NotOurs, NotWritable) as error:
            return [str(error)]
        if done.taken_out:
            lines.append(f"taken out: {', '.join(done.taken_out)}")
            lines.append(f"Run {dump} again: it writes only these.")
        if done.aside:
            lines.append(f"put aside, because no dump wrote it, and left to you: {', '.join(done.aside)}")
    elif findings.damaged_parts:
        lines.append(f"Take damaged scenes out with --repair, then run {dump} again.")
    if any(fault.damage and not fault.part and fault.path.endswith("zarr.json") for fault in findings.faults):
        lines.append(
            "What the store says about itself is damaged, and no repair can restore it:"
            " dump into a new store."
        )
    if any(not fault.damage for fault in findings.faults):
        lines.append("Files that do not belong there, or may not be read, are left to you.")
    return lines


BY_NAME = {
    "info": info,
    "tokens": tokens,
    "show": show,
    "report": report,
    "diff": diff,
    "plan": plan,
    "verify": verify,
}
