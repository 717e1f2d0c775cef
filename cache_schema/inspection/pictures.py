"""The picture that `show --png` draws: bird's-eye view on top, below it what each camera gave."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cache_schema.errors import CacheError
from cache_schema.inspection.bev_panels import bev_panels, draw_bev
from cache_schema.inspection.camera_panels import camera_seats, draw_image, draw_pv, pv_colours
from cache_schema.inspection.canvas import INK, PAPER, require_matplotlib, score_map
from cache_schema.inspection.coco_folder import dataset_of
from cache_schema.inspection.dataset_tables import GroundTruth
from cache_schema.inspection.sample import Sample

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

_WIDTH_IN, _DPI = 16.0, 100
_HEADER_IN = 0.75
_COLUMNS = 3


def draw_sample(sample: Sample, png: Path, dataroot: Path | None = None) -> None:
    """Draw a sample.

    Args:
        png: the file that is written.
        dataroot: folder of the dataset, for images and ground truth; None leaves them out.

    Raises CacheError when matplotlib or an image is missing, or there is nothing to draw.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    panels = [] if sample.on_picture else bev_panels(sample)
    cameras = camera_seats(sample.spec.inputs.camera_order)
    height, width = sample.spec.inputs.image_shape[:2]
    columns = min(len(cameras), _COLUMNS)
    rows = -(-len(cameras) // columns)
    camera_block_in = rows * (_WIDTH_IN / max(columns, 2) * height / width + 0.2)
    files = truth = None
    if dataroot is not None:
        tables = dataset_of(sample.spec, dataroot)
        files = tables.image_files(sample.token, sample.spec.inputs.camera_order)
        truth = tables.ground_truth(sample.token, sample.spec.outputs.class_names)

    blocks = {"header": _HEADER_IN}
    if panels:
        _, y_from, _, _, y_to, _ = sample.range_m
        x_from, x_to = sample.range_m[0], sample.range_m[3]
        shape = (y_to - y_from) / (x_to - x_from)
        blocks["bev"] = _WIDTH_IN / max(len(panels), _COLUMNS) * shape + 0.2
    if files:
        blocks["images"] = camera_block_in
    if sample.finest_pv:
        blocks["maps"] = camera_block_in
    if len(blocks) == 1:
        raise CacheError("nothing to draw: the store has no maps and no boxes, and no --dataroot was given")

    figure = Figure(figsize=(_WIDTH_IN, sum(blocks.values())), dpi=_DPI, facecolor=PAPER)
    found = figure.subfigures(len(blocks), 1, height_ratios=list(blocks.values()), squeeze=False)[:, 0]
    parts = dict(zip(blocks, found, strict=True))
    _header(parts["header"], sample, truth)
    if panels:
        for ax, panel in zip(_grid(parts["bev"], 1, len(panels)), panels, strict=True):
            draw_bev(ax, sample, truth, *panel)
    if files:
        paths = list(files.values())
        for ax, camera in zip(_grid(parts["images"], rows, columns), cameras, strict=False):
            draw_image(ax, sample, truth, camera, paths[camera])
    if sample.finest_pv:
        colours = pv_colours(sample)
        for ax, camera in zip(_grid(parts["maps"], rows, columns), cameras, strict=False):
            draw_pv(ax, sample, truth, camera, colours)
    _save(figure, png)


def _grid(part: SubFigure, rows: int, columns: int) -> list:
    part.set_facecolor(PAPER)
    grid = part.subplots(rows, columns, squeeze=False)
    part.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=1 - 0.07 / rows, wspace=0.02, hspace=0.1)
    for ax in grid.flat:
        ax.axis("on")
    return list(grid.flat)


def _header(part: SubFigure, sample: Sample, truth: GroundTruth | None) -> None:
    from matplotlib.cm import ScalarMappable

    part.set_facecolor(PAPER)
    teacher, dataset = sample.spec.teacher, sample.spec.dataset
    weights = "" if teacher.trained else " (UNTRAINED: random weights)"
    title = f"{teacher.detector}{weights}  ·  {dataset.name} {dataset.version}  ·  {sample.scene_name}"
    if sample.head is not None:
        title += f"  ·  queries and boxes of {sample.head.detector}"
    part.text(0.01, 0.62, title, color=INK, fontsize=14, weight="bold", va="center")
    about = f"sample {sample.token}  ·  {_boxes_text(sample)}"
    if truth is not None:
        about += f"  ·  {len(truth.boxes)} boxes of the ground truth, dashed"
    part.text(0.01, 0.22, about, color=INK, fontsize=9, va="center")
    if sample.boxes is not None:
        ax = part.add_axes((0.8, 0.42, 0.19, 0.16))
        bar = part.colorbar(ScalarMappable(cmap=score_map()), cax=ax, orientation="horizontal")
        bar.set_label("score of a box", color=INK, fontsize=8)
        bar.ax.xaxis.set_label_position("top")
        bar.ax.tick_params(colors=INK, labelsize=7)


def _boxes_text(sample: Sample) -> str:
    boxes = sample.boxes
    if boxes is None:
        return "nothing detected"
    if boxes.threshold is None:
        return f"no box reaches the score asked for: the best {len(boxes.scores)} are drawn"
    return f"{len(boxes.scores)} boxes with a score of {boxes.threshold:g} or more"


def _save(figure: Figure, png: Path) -> None:
    try:
        figure.savefig(png, format="png", facecolor=PAPER, dpi=_DPI)
    except OSError as error:
        raise CacheError(f"{png} cannot be written: {error.strerror}") from None
