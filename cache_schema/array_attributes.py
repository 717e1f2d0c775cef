"""What the `zarr.json` of an array tells readers that have none of our code: how its numbers are to be read.

Everything here follows from the store's spec, so it needs no field of its own there.
"""

from typing import Any

from cache_schema.array_spec import ArraySpec
from cache_schema.detections import DETECTION_ARRAYS, DETECTION_BOXES, DETECTION_LABELS, DETECTION_SCORES
from cache_schema.profiles import links
from cache_schema.spec import StoreSpec

QUERY_BOXES = "query_boxes"
# What can be said of an array whoever the teacher is; other names are the teacher's own.
_MEANINGS: dict[str, dict[str, Any]] = {
    DETECTION_BOXES: {
        "long_name": "decoded boxes, best first",
        "columns": ["x", "y", "z", "l", "w", "h", "yaw", "vx", "vy"],
        "column_units": ["m", "m", "m", "m", "m", "m", "rad", "m/s", "m/s"],
    },
    DETECTION_SCORES: {"long_name": "scores of the decoded boxes, 0 to 1"},
    DETECTION_LABELS: {"long_name": "classes of the decoded boxes, as places in class_names"},
    QUERY_BOXES: {"long_name": "box of each object query"},
    "query_logits": {"long_name": "class scores of each object query, before the sigmoid"},
    "lidar2img": {
        "long_name": "(x, y, z, 1) in metres of the LiDAR frame to (column × depth, row × depth, depth, 1)",
        "units": "pixels of the padded image",
    },
}


def array_attributes(array: ArraySpec, spec: StoreSpec) -> dict[str, Any]:
    """The attributes of a stored array: its role, units, names of its numbers, and the arrays it goes with.

    Args:
        array: one of `spec.stored_arrays`.
    """
    attributes = {
        name: value
        for name in ("role", "stride", "extent_m", "frame")
        if (value := getattr(array, name)) is not None
    }
    attributes |= _MEANINGS.get(array.name, {})
    if "class" in array.dimension_names or array.name == DETECTION_LABELS:
        attributes["class_names"] = list(spec.outputs.class_names)
    if "camera" in array.dimension_names:
        attributes["camera_names"] = list(spec.inputs.camera_order)
    if array.name == DETECTION_BOXES:
        attributes["box_convention"] = spec.outputs.box_convention
    if array.name == QUERY_BOXES and spec.outputs.query_box_encoding is not None:
        attributes["box_encoding"] = spec.outputs.query_box_encoding
    if array.name in DETECTION_ARRAYS:
        attributes["rows_from"] = DETECTION_SCORES
        attributes["rows_rule"] = f"a sample has as many rows as {DETECTION_SCORES} has before its first NaN"
    return attributes | links(spec.profile, spec.arrays, spec.background_block).get(array.name, {})
