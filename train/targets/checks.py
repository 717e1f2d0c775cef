"""Whether a store fits a training: its teacher, its samples, its arrays. Asked before the first step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from cache_schema.array_spec import BEV_MAP, DENSE_HEAD, IMAGE_MAP, QUERY, ArraySpec
from cache_schema.reader import TargetReader
from cache_schema.spec import StoreSpec
from cache_schema.wording import counted
from camera3d.data import SplitIndex
from camera3d.data.augmentation import Augmentation
from camera3d.data.images import ImagePipeline
from camera3d.detectors.builder import plain_config
from camera3d.errors import Camera3DError, shown

# What --arrays of a dump calls the arrays of a role.
GROUPS = {IMAGE_MAP: "pv", BEV_MAP: "bev", QUERY: "queries", DENSE_HEAD: "queries"}


class TargetsUnfit(Camera3DError):
    """The teacher's targets are not what the configured terms need."""


def expectation(
    student: Config, index: SplitIndex, teacher: Config | None = None, checkpoint_sha256: str | None = None
) -> dict[str, dict[str, object]]:
    """What a store must have been made of, in the shape of `TargetReader`'s `expect`.

    Args:
        student: its class order and the cameras it sees are the store's.
        index: of the frames to be trained on; the split may be another, as long as the samples are there.
        teacher: the config the store was dumped with; None accepts the store's own.
        checkpoint_sha256: of the teacher's weights; None accepts the store's own.
    """
    expected: dict[str, dict[str, object]] = {
        "inputs": {"camera_order": list(index.camera_names)},
        "outputs": {
            "class_names": list(student.model.class_names),
            "box_convention": index.box_kind.convention,
        },
        "dataset": {"name": index.dataset, "version": index.version},
    }
    if teacher is not None:
        expected["teacher"] = {"config": plain_config(teacher.model)}
        expected["inputs"]["pipeline"] = ImagePipeline.from_config(teacher.inputs).to_dict()
    if checkpoint_sha256 is not None:
        expected.setdefault("teacher", {})["checkpoint_sha256"] = checkpoint_sha256
    return expected


def covered(index: SplitIndex, reader: TargetReader, *, allow_partial: bool) -> SplitIndex:
    """The frames whose targets are there: all, or with `allow_partial` those of the scenes that are whole.

    Raises:
        TargetsUnfit: samples are missing and that is not allowed, or not one scene is there.
    """
    tokens = [token.decode() for token in index.columns["sample_token"].tolist()]
    missing = [token for token in tokens if token not in reader]
    if not missing:
        return index
    lost = set(missing)
    whole = [s.name for s in index.scene_rows if not lost.intersection(tokens[s.first : s.stop])]
    if allow_partial and whole:
        return index.select(whole)
    message = (
        f"{reader.path} lacks {len(missing)} of the {len(tokens)} samples of split {index.split!r}"
        f" ({index.version}):\n{shown(missing)}\n"
    )
    if not whole:
        raise TargetsUnfit(f"{message}No scene of the split is in the store. Give the store of this split.")
    raise TargetsUnfit(
        f"{message}Finish the dump (the same command continues it), or train on the"
        f" {counted(len(whole), 'complete scene')} with --allow-partial."
    )


def check_store(
    spec: StoreSpec,
    wanted: Mapping[str, tuple[str, ...]],
    whole_maps: tuple[str, ...],
    layer: StoreSpec | None = None,
) -> None:
    """Whether the store holds what each term reads.

    Args:
        wanted: by term, the teacher's outputs, which it gives.
        whole_maps: the terms that compare whole maps.
        layer: of the store, where one is read.

    Raises TargetsUnfit with a line for every term that cannot be had, and what would do.
    """
    held = {array.name for one in (spec, layer) if one is not None for array in one.arrays}
    roles = {array.name: array.role for array in spec.teacher_outputs}
    faults = []
    for term, names in wanted.items():
        absent = [name for name in names if name not in held]
        if absent:
            groups = sorted({GROUPS[roles[name]] for name in absent})
            faults.append(
                f"{term} needs {', '.join(absent)}: dump with --arrays that name {' and '.join(groups)}"
            )
        elif term in whole_maps and spec.profile == "focal":
            faults.append(
                f"{term} compares whole maps, and profile focal keeps the areas of instances only: dump with"
                " profile compact or exact"
            )
    if faults:
        raise TargetsUnfit(
            f"the store (profile {spec.profile}) lacks what terms need:\n{shown(faults)}\n"
            "Use such a store, or take the terms out of distiller.terms."
        )


# The heatmap reaches further around a box than its footprint: docs/decisions/0004 has the shares.
HEATMAP_MARGIN_M = 1.5


def check_areas(
    spec: StoreSpec,
    areas: Mapping[str, float],
    *,
    heatmap: bool = False,
    augmentation: Augmentation | None = None,
) -> None:
    """Whether a store of profile `focal` kept what lies in the areas that the terms look at.

    Outside of what it kept, a term would be given the mean of a block of cells and take it for the teacher's.

    Args:
        areas: `min_score`, `at_most`, `bev_margin_m` and `pv_margin_cells` of the terms.
        heatmap: whether a term looks under the ground-truth heatmap.
        augmentation: of the student, which moved maps read a little more for, see `reach_of_margins`.

    Raises TargetsUnfit with a line for each that asks for more.
    """
    if spec.focal is None:
        return
    cell = bev_cell_m(spec)
    areas = {**areas, **reach_of_margins(areas, augmentation, cell)}
    drawn = spec.focal.areas
    kept = {"min_score": spec.focal.min_score}
    kept |= {name: drawn.get(name) for name in ("at_most", "bev_margin_m", "pv_margin_cells")}
    made = "store was dumped" if spec.layer is None else "layer was made"
    faults = [
        f"areas.{name}: {areas[name]:g}, and the {made} with {limit:g}"
        for name, limit in kept.items()
        if limit is not None and (areas[name] < limit if name == "min_score" else areas[name] > limit)
    ]
    reach = {"bev_margin_m": max(HEATMAP_MARGIN_M, cell), "pv_margin_cells": 0.0}
    margin, reach = kept["bev_margin_m"], reach_of_margins(reach, augmentation, cell)["bev_margin_m"]
    if heatmap and margin is not None and margin < reach:
        faults.append(
            f"bev_heatmap: its heatmap reaches {reach:g} m beyond a box, and the store was dumped with"
            f" {margin:g}"
        )
    if faults:
        what, remedy = "store (profile focal)", "dump again with --focal-min-score and --focal-margins"
        if spec.layer is not None:
            what, remedy = "layer", "make another layer with --min-score"
        raise TargetsUnfit(
            f"the areas of the terms reach beyond what the {what} kept:\n{shown(faults)}\n"
            f"Set them to what was kept, or {remedy}."
            + ("" if augmentation is None else " Moved maps read further: augmentation counts in.")
        )


def reach_of_margins(
    areas: Mapping[str, float], augmentation: Augmentation | None, bev_cell_m: float
) -> dict[str, float]:
    """How far around the boxes, in the teacher's own maps, cells are read for areas of moved maps.

    A margin in a map that was made smaller is a wider one in the map it came from, a square one that is
    turned reaches further along the axes, and a moved cell is read from its four neighbours.

    Args:
        areas: `bev_margin_m` and `pv_margin_cells` in the moved maps.
    """
    reach = {name: areas[name] for name in ("bev_margin_m", "pv_margin_cells")}
    if augmentation is not None and augmentation.bev is not None:
        reach["bev_margin_m"] = reach["bev_margin_m"] / augmentation.bev.scale[0] + 1.5 * bev_cell_m
    if augmentation is not None and augmentation.image is not None:
        turn = math.radians(min(augmentation.image.rotate_deg, 45.0))
        wider = (math.cos(turn) + math.sin(turn)) / augmentation.image.zoom[0]
        reach["pv_margin_cells"] = reach["pv_margin_cells"] * wider + 1
    return reach


def bev_cell_m(spec: StoreSpec) -> float:
    """The longer side of a cell of the teacher's BEV map; zero where it has none."""
    return max(
        (side for array in spec.teacher_outputs if array.role == BEV_MAP for side in cell_sides_m(array)),
        default=0.0,
    )


def cell_sides_m(bev_map: ArraySpec) -> tuple[float, float]:
    """Extent of a cell along x and y."""
    low_x, low_y, _, high_x, high_y, _ = bev_map.extent_m
    height, width = bev_map.shape[-2:]
    return (high_x - low_x) / width, (high_y - low_y) / height


def teacher_config_path(config: Config) -> Path | None:
    """The file that `teacher` of a distillation config names, relative to that config."""
    named = config.get("teacher")
    if named is None:
        return None
    path = Path(named)
    return path if path.is_absolute() or not config.filename else Path(config.filename).parent / path
