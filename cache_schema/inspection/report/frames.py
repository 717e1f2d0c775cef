"""One sample as the page draws it: pictures, and boxes and projections as numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.inspection.camera_panels import camera_seats, input_scale, pv_colours
from cache_schema.inspection.dataset_tables import GroundTruth
from cache_schema.inspection.projections import norm_map, pca_rgb
from cache_schema.inspection.sample import Sample
from cache_schema.pages.escape import numbers
from cache_schema.pages.rasters import colours_uri, photo_uri

_PHOTO_WIDTH = 480
_KEPT_RGB, _LEFT_OUT_RGB = (0.28, 0.48, 0.56), (0.06, 0.07, 0.09)


def frame_facts(
    sample: Sample, start_us: int, truth: GroundTruth | None, files: Mapping[str, Path] | None
) -> dict[str, Any]:
    """What the page's script is given of a sample.

    Args:
        start_us: when the scene's first sample was taken.
        truth: annotated boxes; None when no dataset is at hand.
        files: the dataset's image of each camera; without them the finest image map stands in.

    Returns:
        token, scene, seconds since `start_us`; boxes (7 numbers each, best first), scores, labels; truth with
        boxes and labels, or None; layers of the bird's-eye view and cameras with title and picture.
    """
    found = sample.boxes
    return {
        "token": sample.token,
        "scene": sample.scene_name,
        "seconds": round((sample.timestamp_us - start_us) / 1e6, 2),
        "boxes": [] if found is None else numbers(found.boxes[:, :7]),
        "scores": [] if found is None else numbers(found.scores),
        "labels": [] if found is None else found.labels.tolist(),
        "truth": None if truth is None else {"boxes": numbers(truth.boxes), "labels": truth.labels.tolist()},
        "layers": bev_layers(sample),
        "cameras": _cameras(sample, files),
    }


def bev_layers(sample: Sample) -> list[dict[str, str]]:
    """Pictures of the bird's-eye view, with x to the right and y up; none when the store has no such map."""
    name, layers = sample.bev_map, []
    if name is None:
        return layers
    layers.append((f"{name}: principal components as colours", pca_rgb(sample.arrays[name])))
    norm = norm_map(sample.arrays[name])
    grey = norm / max(float(norm.max()), np.finfo(np.float32).tiny)
    layers.append((f"{name}: norm over the channels", np.repeat(grey[..., None], 3, axis=-1)))
    if name in sample.masks:
        kept = np.where(sample.masks[name][..., None], _KEPT_RGB, _LEFT_OUT_RGB)
        layers.append((f"{name}: cells that the store keeps", kept))
    return [{"title": title, "picture": colours_uri(colours[::-1])} for title, colours in layers]


def _cameras(sample: Sample, files: Mapping[str, Path] | None) -> list[dict[str, Any]]:
    """The panels in the order they are seen; sizes and projections in pixels of the network's input."""
    names = sample.spec.inputs.camera_order
    if files is None and sample.finest_pv is None:
        return []
    colours = pv_colours(sample) if files is None else None
    lidar2img = sample.arrays.get("lidar2img")
    cameras = []
    for number in camera_seats(names):
        if files is not None:
            picture, size_wh = photo_uri(files[names[number]], _PHOTO_WIDTH)
            covers = size = [side * input_scale(sample) for side in size_wh]
        else:
            picture = colours_uri(colours[number])
            stride = next(array.stride for array in sample.spec.arrays if array.name == sample.finest_pv)
            covers = [stride * side for side in colours.shape[2:0:-1]]
            size = list(sample.spec.inputs.image_shape[1::-1])
        cameras.append(
            {
                "name": names[number],
                "what": "image" if files is not None else f"{sample.finest_pv} as colours",
                "size": size,
                "covers": covers,
                "picture": picture,
                "lidar2img": None if lidar2img is None else numbers(lidar2img[number][:3]),
            }
        )
    return cameras
