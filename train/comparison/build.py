"""From the paths of runs to the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cache_schema.errors import CacheError
from cache_schema.inspection.dataset_tables import DatasetTables
from cache_schema.pages.charts import N_LINES
from cache_schema.pages.document import check_folder, write_page
from cache_schema.pages.rasters import require_pillow
from train.comparison.frames import Gallery, gallery_of
from train.comparison.page import page
from train.comparison.runs import read_run, run_names


def write_comparison(
    paths: Sequence[str],
    out: Path,
    *,
    names: Sequence[str] | None = None,
    dataroot: Path | None = None,
    version: str | None = None,
    n_frames: int = 8,
    progress: Callable[[list[str]], Iterable[str]] = iter,
) -> int:
    """Write the page; returns its bytes.

    Args:
        names: of the runs; by default those of their folders.
        dataroot, version: of the dataset; None leaves the frames out.

    Raises CacheError when a run cannot be read, the dataset does not fit, or the file cannot be written.
    """
    if len(paths) > N_LINES:
        raise CacheError(f"{len(paths)} runs: at most {N_LINES} can be told apart on a page")
    check_folder(out)
    runs = [read_run(path, name) for path, name in zip(paths, names or run_names(paths), strict=True)]
    gallery, without = Gallery(), "None: give --dataroot and --version to see what was detected."
    if dataroot is not None:
        require_pillow()
        tables = DatasetTables(dataroot, version)
        tables.check()
        if any(run.results is not None or run.reader is not None for run in runs):
            gallery = gallery_of(runs, tables, n_frames, progress)
        else:
            without = "None: no run has left detections."
    return write_page(out, page(runs, gallery, without))
