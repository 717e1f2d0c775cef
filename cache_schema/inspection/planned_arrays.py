"""The arrays that a teacher will give, from the numbers in its config alone.

A detector is known here by its `model.type`; it states its maps itself when it is built, and a test holds the
two to one another.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cache_schema.array_spec import ArraySpec
from cache_schema.errors import CacheError

GROUPS = ("bev", "pv", "queries")
_CAMERAS = 6
# Defaults of the detector's builder: a config only says what it changes.
_HEAD_DEFAULTS = {
    "num_queries": 900,
    "decoder_layers": 6,
    "embed_dims": 256,
    "num_heads": 8,
    "decoder_points": 4,
}


def planned_arrays(config: Mapping[str, Any], groups: Sequence[str]) -> tuple[ArraySpec, ...]:
    """The arrays of a dump with that config.

    Args:
        config: as `read_config` gives it.
        groups: of GROUPS.

    Raises CacheError for an unknown detector or group, or a config that lacks what the shapes follow from.
    """
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown or not groups:
        raise CacheError(f"--arrays takes one or more of {', '.join(GROUPS)}; got {', '.join(groups)}")
    kind = config.get("model", {}).get("type")
    if kind not in _DETECTORS:
        raise CacheError(f"no plan for model.type {kind!r}; known: {', '.join(_DETECTORS)}")
    try:
        arrays = _DETECTORS[kind](config["model"], config["inputs"])
    except KeyError as error:
        raise CacheError(f"the config does not say {error}, which the shapes follow from") from None
    return tuple(array for array in arrays if _group(array.name) in (*groups, "frame"))


def _bevformer(model: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[ArraySpec]:
    head = _HEAD_DEFAULTS | model["pts_bbox_head"]
    n_cameras = model.get("num_cameras", _CAMERAS)
    height, width = inputs["pad_hw"]
    channels, layers, queries = head["embed_dims"], head["decoder_layers"], head["num_queries"]
    per_query = ("layer", "query")
    points = (layers, queries, head["num_heads"], 1, head["decoder_points"])
    point_names = (*per_query, "head", "bev_level", "point")
    arrays = [
        _array(
            f"pv_feats_{level}",
            "float16",
            # Every halving rounds up, as convolutions with stride 2 and padding do.
            (n_cameras, channels, -(-height // stride), -(-width // stride)),
            ("camera", "channel", f"pv_{level}_y", f"pv_{level}_x"),
        )
        for level, stride in enumerate(model["pv_strides"])
    ]
    return [
        *arrays,
        _array("bev_feats", "float16", (channels, *head["bev_hw"]), ("channel", "bev_y", "bev_x")),
        _array(
            "query_logits", "float16", (layers, queries, len(model["class_names"])), (*per_query, "class")
        ),
        _array("query_boxes", "float32", (layers, queries, 10), (*per_query, "box_code")),
        _array("query_feats", "float16", (layers, queries, channels), (*per_query, "channel")),
        _array("reference_points", "float32", (layers, queries, 3), (*per_query, "xyz")),
        _array("sampling_locations", "float32", (*points, 2), (*point_names, "xy")),
        _array("attention_weights", "float16", points, point_names),
        _array("focal_feats", "float16", (layers, queries, channels), (*per_query, "channel")),
        _array("can_bus", "float64", (18,), ("can_bus_number",)),
        _array("lidar2img", "float64", (n_cameras, 4, 4), ("camera", "image_row", "lidar_column")),
    ]


_DETECTORS = {"BEVFormer": _bevformer}


def _group(name: str) -> str:
    if name in ("can_bus", "lidar2img"):
        return "frame"
    return {"pv_": "pv", "bev": "bev"}.get(name[:3], "queries")


def _array(name: str, dtype: str, shape: tuple[int, ...], dimension_names: tuple[str, ...]) -> ArraySpec:
    return ArraySpec(name=name, dtype=dtype, shape=shape, dimension_names=dimension_names, compressed=False)
