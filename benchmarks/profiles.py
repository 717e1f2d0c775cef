"""How good is small: bytes of each profile, and the error it causes in what distillation computes.

    python benchmarks/profiles.py                                      # made-up features, made-up scene
    python benchmarks/profiles.py --dataroot D --version v1.0-mini --split mini_train --store base.zarr

The store comes from `python extract/dump_teacher.py configs/teacher/bevformer_base.py …`, `--checkpoint` or
`--untrained`; features of a trained teacher are what counts, so run it again where there is a checkpoint.
For BEVFormer-Base at full size. Every term is computed with targets as `exact`, `compact` and `focal` would
hand them out; its value and its gradient on the student's map are compared with those of `exact`. The student
is the teacher plus noise: the nearer it is, the smaller the gradient and the larger the share of rounding.
Writes benchmarks/results/profiles.md.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import profile_samples as samples
import torch
import torch.nn.functional as F
from profile_samples import Sample
from torch import Tensor
from tqdm import tqdm

from cache_schema.array_spec import DETECTION, ArraySpec
from cache_schema.profiles import stored_arrays
from cache_schema.profiles.focal import FocalMap, encode_map
from cache_schema.quantise import dequantise, quantise
from camera3d.detectors import build_detector
from camera3d.instance_areas import bev_area, pv_areas, query_confidence
from extract.store_spec import ARRAY_GROUPS, teacher_arrays
from train.losses import (
    AreaL2,
    ChannelWiseDivergence,
    FocalSampling,
    HeatmapL2,
    MaskedGenerator,
    QueryAlignment,
    gaussian_heatmap,
    resize_heatmap,
)

ROOT = Path(__file__).parents[1]
PROFILES = ("exact", "compact", "focal")
LOSS_BEV_MARGIN_M, STORED_BEV_MARGIN_M, PV_MARGIN_CELLS = 0.5, 1.5, 1.0
BACKGROUND_BLOCK = 8
CURVE = (1.0, 0.5, 0.2, 0.1)
LIMITS_MB = {"exact": math.inf, "compact": 58.0, "focal": 8.0}
LEAST_COSINE = {"compact": 0.999, "focal": 0.99}


@dataclass(frozen=True)
class Areas:
    """Where the losses look and what `focal` keeps: (H, W) and a (N, h, w) a level, bool; by map name."""

    loss: Mapping[str, Tensor]
    stored: Mapping[str, Tensor]
    confidence: Tensor  # (Q,)
    heatmap: Tensor  # (H, W)


@dataclass(frozen=True)
class Term:
    """A loss and the student's tensor it is differentiated by; `compute` takes the targets by array name."""

    name: str
    student: Tensor
    compute: Callable[[Mapping[str, Tensor]], Tensor]
    meant_for_focal: bool = True


@dataclass(frozen=True)
class Row:
    """One term under one profile, against `exact`."""

    term: str
    profile: str
    meant: bool
    loss: float
    loss_error: float  # relative
    cosine: float
    gradient_error: float  # |difference| / |exact|


def find_areas(sample: Sample, min_score: float, at_most: int) -> Areas:
    """Areas of ground truth and confident queries, and the heatmap of the ground truth."""
    logits = sample.queries["query_logits"][-1].float()
    confidence = query_confidence(logits, min_score=min_score, at_most=at_most)
    boxes = torch.cat((sample.boxes, samples.confident_boxes(sample, confidence)))

    def both_views(bev_margin_m: float) -> dict[str, Tensor]:
        levels = pv_areas(
            boxes,
            lidar2img=sample.lidar2img,
            map_hws=samples.PV_HWS,
            strides=samples.STRIDES,
            margin_cells=PV_MARGIN_CELLS,
        )
        bev = bev_area(boxes, map_hw=samples.BEV_HW, xy_range_m=samples.XY_RANGE_M, margin_m=bev_margin_m)
        return {"bev_feats": bev} | {f"pv_feats_{level}": area for level, area in enumerate(levels)}

    heatmap = gaussian_heatmap(sample.boxes, xy_range_m=samples.XY_RANGE_M)
    return Areas(
        loss=both_views(LOSS_BEV_MARGIN_M),
        stored=both_views(STORED_BEV_MARGIN_M),
        confidence=confidence,
        heatmap=resize_heatmap(heatmap[None], samples.BEV_HW)[0],
    )


def handed_out(profile: str, values: np.ndarray, area: Tensor) -> Tensor:
    """The float32 map that a reader makes of what the profile stored; (..., C, H, W), area (..., H, W)."""
    if profile == "exact":
        return torch.from_numpy(values).float()
    if profile == "compact":
        return torch.from_numpy(dequantise(*quantise(values)))
    stored = encode_map("", values, area.numpy(), BACKGROUND_BLOCK)
    parts = {name.removeprefix("_"): part for name, part in stored.items()}
    return torch.from_numpy(FocalMap(**parts, block=BACKGROUND_BLOCK).filled())


def sample_bytes(profile: str, arrays: tuple[ArraySpec, ...], areas: Areas) -> tuple[int, int]:
    """Bytes of the maps and of everything else of one sample, before lossless compression.

    Ragged arrays take whole chunks.
    """
    maps, rest = 0, 0
    for array in stored_arrays(profile, arrays, BACKGROUND_BLOCK):
        nbytes = array.bytes_per_sample
        if array.ragged and array.role != DETECTION:
            name = array.name.removesuffix("_cells")
            rows = int(areas.stored[name].sum() if name in areas.stored else (areas.confidence > 0).sum())
            rows = -(-rows // array.rows_per_chunk) * array.rows_per_chunk
            nbytes = rows * math.prod(array.shape[1:]) * np.dtype(array.dtype).itemsize
        if array.name.startswith(("bev_feats", "pv_feats")):
            maps += nbytes
        else:
            rest += nbytes
    return maps, rest


def peaks(sample: Sample) -> str:
    """The largest magnitude of a channel in its standard deviations, which is what decides int8's error."""
    parts = []
    for name, values in sample.maps.items():
        rows = torch.from_numpy(values).float().flatten(-2)
        ratio = rows.abs().amax(-1) / rows.std(-1).clamp(min=1e-12)
        parts.append(f"{name} {ratio.median():.1f} (largest {ratio.max():.0f})")
    return ", ".join(parts)


def map_terms(
    name: str, teacher: Tensor, sample: Sample, areas: Areas, distance: float, rng: torch.Generator
) -> Iterator[Term]:
    """The terms of one map; the generated map is shared between them and between the profiles."""
    student = samples.student_map(teacher, distance, rng)
    student = (student if student.dim() == 4 else student[None])[None].requires_grad_()
    torch.manual_seed(0)
    generator = MaskedGenerator(channels=samples.CHANNELS).requires_grad_(False)
    area = areas.loss[name].view(1, -1, *teacher.shape[-2:])
    generated = generator(student.flatten(0, 1), area.flatten(0, 1), rng).view(student.shape)
    shape = tuple(student.shape)
    distance_term = AreaL2()
    yield Term(
        f"masked generation, {name}", student, lambda t: distance_term(generated, t[name].view(shape), area)
    )
    if name != "bev_feats":
        divergence = ChannelWiseDivergence()
        yield Term(
            f"channel-wise divergence, {name}",
            student,
            lambda t: divergence(student, t[name].view(shape)),
            meant_for_focal=False,
        )
        return
    heatmap_l2 = HeatmapL2()
    yield Term(
        "heatmap L2, bev_feats",
        student,
        lambda t: heatmap_l2(student[0], t[name][None], areas.heatmap[None]),
    )
    focal = FocalSampling(value_projections=sample.value_projections)
    keys = ("sampling_locations", "attention_weights", "focal_feats")
    yield Term(
        "focal sampling, bev_feats",
        student,
        lambda t: focal(generated[0], *(t[k][None] for k in keys), t["confidence"][None]),
    )


def query_terms(sample: Sample, distance: float, rng: torch.Generator) -> Iterator[Term]:
    """The query term, by its logits; its boxes are stored as they are in every profile."""
    logits = sample.queries["query_logits"].float()
    student = (logits + distance * torch.randn(logits.shape, generator=rng)).requires_grad_()
    align = QueryAlignment()

    def compute(t: Mapping[str, Tensor]) -> Tensor:
        boxes = t["query_boxes"][None]
        mine = student[:, t["rows"]][None]
        return align(mine, boxes, t["query_logits"][None], boxes, t["confidence"][None])[0]

    yield Term("query alignment, logits", student, compute)


def stored_queries(profile: str, sample: Sample, areas: Areas) -> dict[str, Tensor]:
    """The query arrays: all of them, or those of the confident queries."""
    confidence = areas.confidence
    rows = confidence.nonzero().squeeze(-1) if profile == "focal" else torch.arange(len(confidence))
    kept = {name: values[:, rows] for name, values in sample.queries.items()}
    return kept | {"confidence": confidence[rows], "rows": rows}


def measure(sample: Sample, areas: Areas, distance: float, names: list[str] | None = None) -> list[Row]:
    """All terms of the given maps under all profiles, map by map so that memory stays small."""
    rng = torch.Generator().manual_seed(1)
    queries = {profile: stored_queries(profile, sample, areas) for profile in PROFILES}
    rows = []
    for name in tqdm(names or sample.maps, desc=f"{sample.name}, distance {distance:g}", unit="map"):
        targets = {
            p: queries[p] | {name: handed_out(p, sample.maps[name], areas.stored[name])} for p in PROFILES
        }
        for term in map_terms(name, targets["exact"][name], sample, areas, distance, rng):
            rows += compare(term, targets)
    if not names:
        for term in query_terms(sample, distance, rng):
            rows += compare(term, queries)
    return rows


def compare(term: Term, targets: Mapping[str, Mapping[str, Tensor]]) -> list[Row]:
    rows, exact_loss, exact = [], 0.0, None
    for profile in PROFILES:
        loss = term.compute(targets[profile])
        (gradient,) = torch.autograd.grad(loss, term.student, retain_graph=True)
        gradient = gradient.flatten().double()
        if exact is None:
            exact_loss, exact = loss.item(), gradient
            continue
        rows.append(
            Row(
                term=term.name,
                profile=profile,
                meant=profile != "focal" or term.meant_for_focal,
                loss=exact_loss,
                loss_error=abs(loss.item() - exact_loss) / abs(exact_loss),
                cosine=F.cosine_similarity(gradient, exact, dim=0).item(),
                gradient_error=((gradient - exact).norm() / exact.norm()).item(),
            )
        )
    return rows


def terms_table(rows: list[Row]) -> list[str]:
    lines = [
        "| term | loss under exact | profile | loss error | gradient cosine | gradient error | |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    for row in rows:
        verdict = "not meant for it"
        if row.meant:
            verdict = "ok" if row.cosine >= LEAST_COSINE[row.profile] else "**missed**"
        lines.append(
            f"| {row.term} | {row.loss:.4g} | {row.profile} | {row.loss_error:.1e} | {row.cosine:.6f} |"
            f" {row.gradient_error:.1e} | {verdict} |"
        )
    return lines


def report_sample(sample: Sample, options: argparse.Namespace, arrays: tuple[ArraySpec, ...]) -> list[str]:
    areas = find_areas(sample, options.min_score, options.at_most)
    share = ", ".join(f"{name} {area.float().mean():.1%}" for name, area in areas.stored.items())
    lines = [
        f"## {sample.name}",
        "",
        f"{len(sample.boxes)} boxes, {int((areas.confidence > 0).sum())} confident queries; areas in the"
        f" store: {share}.",
        "",
        f"Peak of a channel in its standard deviations, median over channels: {peaks(sample)}.",
        "",
        "| profile | MB a sample | maps | queries, frame | target |",
        "|---|---:|---:|---:|---|",
    ]
    for profile in PROFILES:
        maps, rest = (nbytes / 1e6 for nbytes in sample_bytes(profile, arrays, areas))
        megabytes = maps + rest
        limit = LIMITS_MB[profile]
        verdict = "ok" if megabytes <= limit else "**missed**, the maps alone keep it"
        if maps > limit:
            verdict = "**missed**"
        verdict = "" if limit == math.inf else f"≤ {limit:g}: {verdict}"
        lines.append(f"| {profile} | {megabytes:.1f} | {maps:.1f} | {rest:.1f} | {verdict} |")
    lines += ["", f"Student at {options.distance:g} of the teacher's standard deviation:", ""]
    lines += terms_table(measure(sample, areas, options.distance))
    lines += ["", "Gradient cosine by the student's distance (coarser image level, BEV):", ""]
    lines += ["| distance | profile | lowest cosine of the terms it is meant for |", "|---:|---|---:|"]
    for distance in CURVE:
        rows = [row for row in measure(sample, areas, distance, ["pv_feats_2", "bev_feats"]) if row.meant]
        for profile in PROFILES[1:]:
            worst = min((row for row in rows if row.profile == profile), key=lambda row: row.cosine)
            lines.append(f"| {distance:g} | {profile} | {worst.cosine:.6f} ({worst.term}) |")
    return [*lines, ""]


def heading() -> list[str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT)
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
    ]
    return [
        "# What the profiles cost and what they spoil",
        "",
        f"{datetime.date.today().isoformat()}, {models[0] if models else platform.machine()},"
        f" torch {torch.__version__}, commit {commit.stdout.strip() or 'none'}. BEVFormer-Base at full size,"
        f" bytes before lossless compression, background blocks of {BACKGROUND_BLOCK} cells, stored margins"
        f" {STORED_BEV_MARGIN_M:g} m (BEV) and {PV_MARGIN_CELLS:g} cells (images).",
        f"Targets: compact ≤ {LIMITS_MB['compact']:g} MB and cosine ≥ {LEAST_COSINE['compact']}; focal ≤"
        f" {LIMITS_MB['focal']:g} MB and cosine ≥ {LEAST_COSINE['focal']} on the terms it is meant for."
        " `focal` is not meant for the channel-wise divergence, which compares whole image maps.",
        "",
        "How to read it: int8 rounds a channel by peak / (127 √12). For a term that is a squared distance,"
        " and a student d standard deviations away, the cosine is about 1 - (p / 440 d)² / 2 with p the peak"
        " in standard deviations: 0.999 holds as long as p ≤ 20 d. Made-up features have heavier tails on"
        " purpose. Queries, sampling positions, attention weights and `focal_feats` are stored alike in all"
        " profiles, so the terms on them differ by nothing but the order of a sum.",
        "",
    ]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataroot", type=Path, help="nuScenes: take boxes and cameras from a real keyframe")
    parser.add_argument("--version", default="v1.0-mini")
    parser.add_argument("--split", default="mini_train")
    parser.add_argument("--store", type=Path, help="take its features from this store of profile exact")
    parser.add_argument("--min-score", type=float, default=0.1, help="of confident queries (0.1)")
    parser.add_argument("--at-most", type=int, default=100, help="confident queries of a sample (100)")
    parser.add_argument("--distance", type=float, default=0.5, help="of the student (0.5)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "profiles.md")
    options = parser.parse_args(argv)
    if options.store and not options.dataroot:
        parser.error("--store needs --dataroot, which the boxes of its sample come from")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    detector = build_detector(ROOT / "configs" / "teacher" / "bevformer_base.py")
    arrays = tuple(teacher_arrays(detector, (928, 1600), tuple(ARRAY_GROUPS))[0])
    lines = heading()
    rng = torch.Generator().manual_seed(0)
    if options.dataroot:
        token, boxes, lidar2img = samples.keyframe_geometry(options.dataroot, options.version, options.split)
        if options.store:
            sample = samples.stored_sample(options.store, token, boxes, rng)
        else:
            name = "Made-up features on a real keyframe"
            sample = samples.generated_sample(name, boxes, lidar2img, rng)
        lines += report_sample(sample, options, arrays)
    sample = samples.generated_sample(
        "Made-up features on a made-up scene", *samples.generated_geometry(rng), rng
    )
    lines += report_sample(sample, options, arrays)
    again = "python benchmarks/profiles.py"
    if options.dataroot:
        again += f" --dataroot D --version {options.version} --split {options.split}"
    if options.store:
        again += " --store base.zarr"
    lines.append(f"Again with: `{again}`")
    print("\n".join(lines))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
