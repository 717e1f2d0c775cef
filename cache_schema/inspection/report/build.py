"""From a store to the file: choose samples, read them one by one, write the page."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema.errors import CacheError, Corrupt
from cache_schema.inspection.coco_folder import COCO
from cache_schema.inspection.dataset_tables import DatasetTables
from cache_schema.inspection.faults import Findings
from cache_schema.inspection.info import describe
from cache_schema.inspection.report.frames import frame_facts
from cache_schema.inspection.report.numbers import Tally
from cache_schema.inspection.report.page import page
from cache_schema.inspection.sample import DEFAULT_RANGE_M, read_sample
from cache_schema.pages.choice import chosen_samples
from cache_schema.pages.document import check_folder, write_page
from cache_schema.pages.rasters import require_pillow
from cache_schema.reader import TargetReader
from cache_schema.storage import StorePath

_BEST = 20  # boxes of a sample that are shown when none is good enough


def write_report(
    store: StorePath,
    out: Path,
    *,
    verify: Callable[[], Findings] | None,
    dataroot: Path | None,
    n_samples: int,
    min_score: float,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> tuple[int, Findings | None]:
    """Write the page of a store; returns its bytes, and what `verify` found.

    Args:
        verify: reads every byte of the store, after all that can be told at once has been; None skips it.
        dataroot: folder of the dataset, for images and ground truth; None leaves them out.
        min_score: where the threshold stands at first.
        progress: goes through the sample tokens, and can tell how far it is.

    A sample that is damaged is named in the page instead of shown.

    Raises CacheError when the store cannot be opened, an image or a table is missing, Pillow is not
    installed, or the file cannot be written.
    """
    require_pillow()
    check_folder(out)
    facts, reader = describe(store), TargetReader(store)
    if reader.spec.dataset.name == COCO:
        raise CacheError(f"{store} is of pictures, and a report draws boxes in space: take show --png")
    tables = None if dataroot is None else DatasetTables(dataroot, reader.spec.dataset.version)
    if tables is not None:
        tables.check()
    findings = None if verify is None else verify()
    chosen = chosen_samples(reader.scenes, n_samples)
    frames: list[dict[str, Any]] = []
    unreadable: list[str] = []
    tally, range_m = Tally(), DEFAULT_RANGE_M
    for token in progress([token for tokens in chosen.values() for token in tokens]):
        try:
            sample = read_sample(reader, token, 0.0)
        except Corrupt as error:
            unreadable.append(f"sample {token}: {error}")
            continue
        truth = files = None
        if tables is not None:
            files = tables.image_files(token, reader.spec.inputs.camera_order)
            truth = tables.ground_truth(token, reader.spec.outputs.class_names)
        start_us = reader.timestamp_us(reader.scenes[sample.scene_name][0])
        frames.append(frame_facts(sample, start_us, truth, files))
        tally.add(sample)
        range_m = sample.range_m
    drawing = {
        "class_names": list(reader.spec.outputs.class_names),
        "range_m": list(range_m),
        "min_score": _start(frames, min_score),
        "frames": frames,
    }
    html = page(str(store), facts, findings, drawing, unreadable, tally)
    return write_page(out, html), findings


def _start(frames: Sequence[Mapping[str, Any]], min_score: float) -> float:
    """Where the threshold stands at first: when no box reaches it, as with an untrained teacher, lower."""
    best = [frame["scores"][:_BEST] for frame in frames if frame["scores"]]
    if not best or max(scores[0] for scores in best) >= min_score:
        return min_score
    return math.floor(100 * min(scores[-1] for scores in best)) / 100
