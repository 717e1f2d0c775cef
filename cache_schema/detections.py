"""The decoded boxes of the teacher, which every dump stores whatever the profile."""

from cache_schema.array_spec import DETECTION, ArraySpec

MAX_DETECTIONS = 300  # of a sample, the best ones
# Boxes (n, 9) or, of pictures, (n, 4), scores (n,) and labels (n,) of a sample, best first;
# docs/store-format.md has the conventions.
DETECTION_BOXES, DETECTION_SCORES, DETECTION_LABELS = DETECTION_ARRAYS = (
    "detection_boxes",
    "detection_scores",
    "detection_labels",
)


def detection_arrays(box_numbers: int = 9) -> tuple[ArraySpec, ...]:
    """The arrays of the decoded boxes, which every store has.

    Args:
        box_numbers: of a box: 9 in space, 4 on a picture.
    """
    rows = {"role": DETECTION, "compressed": False, "rows_per_chunk": MAX_DETECTIONS}
    return (
        ArraySpec(
            name=DETECTION_BOXES,
            dtype="float32",
            shape=(MAX_DETECTIONS, box_numbers),
            dimension_names=("detection", "box_number"),
            **rows,
        ),
        ArraySpec(
            name=DETECTION_SCORES,
            dtype="float32",
            shape=(MAX_DETECTIONS,),
            dimension_names=("detection",),
            **rows,
        ),
        ArraySpec(
            name=DETECTION_LABELS,
            dtype="int16",
            shape=(MAX_DETECTIONS,),
            dimension_names=("detection",),
            **rows,
        ),
    )
