"""What a student's head takes over from a teacher's before the training starts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from camera3d.errors import StartUnfit

PARTS = {"head": ("head.",), "head_and_encoder": ("head.", "backbone.depth_")}


def head_start(kind: str, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the teacher's weights, by full key.

    `head` takes the BEV encoder and the heads, `head_and_encoder` the depth net and the aggregation net too.

    Args:
        kind: of `protocol.STARTS`, but not `none`.
        teacher, student: weights behind the image maps.

    Raises:
        StartUnfit: a part that must fit does not, or `released` was asked for.
    """
    if kind not in PARTS:
        raise StartUnfit(
            [
                f"the {kind} start is one of object queries, and BEVDepth has none: set"
                " distiller.init_from_teacher='head'"
            ]
        )
    keys = [key for key in student if key.startswith(PARTS[kind])]
    shapes = {key: tuple(teacher[key].shape) if key in teacher else None for key in keys}
    faults = [
        f"{key}: {tuple(student[key].shape)} in the student, {shapes[key]} in the teacher"
        for key in keys
        if shapes[key] != tuple(student[key].shape)
    ]
    if faults:
        raise StartUnfit(faults)
    return {key: teacher[key].clone() for key in keys}
