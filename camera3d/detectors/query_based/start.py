"""What a student's queries, branches and decoder take over from a teacher's before the training starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from camera3d.detectors.protocol import OutputSpec
from camera3d.errors import StartUnfit

HEAD = "pts_bbox_head."
QUERIES = ("query_embedding.",)
BRANCHES = ("cls_branches.", "reg_branches.")
DECODER = ("transformer.decoder.", "transformer.reference_points.")


def of_queries(key: str) -> bool:
    """Whether a weight of a head, by its full key, is of its queries, branches or decoder."""
    return key.startswith(HEAD) and key.removeprefix(HEAD).startswith((*QUERIES, *BRANCHES, *DECODER))


def query_start(kind: str, teacher: Mapping[str, Tensor], student: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the teacher's weights, by full key, that the student's queries start from.

    `released` takes queries and branches but for the last class bias, which is where FocalDistiller's student
    starts: its code copies the whole head and then initialises the student, which draws the transformer anew
    and sets the last class bias back to its prior. Every other kind takes queries, branches and the decoder.

    Args:
        kind: of `protocol.STARTS`, but not `none`.
        teacher, student: weights by key, all that begin with `pts_bbox_head.`.

    Raises:
        StartUnfit: a part that must fit does not.
    """
    wanted = (*QUERIES, *BRANCHES) if kind == "released" else (*QUERIES, *BRANCHES, *DECODER)
    ours, theirs = (
        {key for key in weights if key.removeprefix(HEAD).startswith(wanted)}
        for weights in (student, teacher)
    )
    faults = [
        f"{key}: {shape_of(student, key)} in the student, {shape_of(teacher, key)} in the teacher"
        for key in sorted(ours | theirs)
        if shape_of(student, key) != shape_of(teacher, key)
    ]
    if faults:
        raise StartUnfit(faults)
    left_out = _last_class_biases(ours) if kind == "released" else set()
    return {key: teacher[key].clone() for key in sorted(ours - left_out)}


def require_same_range(student: Sequence[OutputSpec], teacher: Sequence[OutputSpec]) -> None:
    """Raise StartUnfit when the queries of the two sit at fractions of different boxes of the world."""
    ours, theirs = (
        next(((spec.extent_m, spec.frame) for spec in specs if spec.name == "reference_points"), (None, None))
        for specs in (student, teacher)
    )
    if ours != theirs:
        frames = "" if ours[1] == theirs[1] else f", in the {ours[1]} and the {theirs[1]} frame"
        raise StartUnfit(
            [
                f"point_cloud_range: the student's is {ours[0]}, the teacher's {theirs[0]}{frames};"
                " its queries sit at fractions of it"
            ]
        )


def shape_of(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    """Shape of a weight; None when it is not there."""
    return tuple(weights[key].shape) if key in weights else None


def _last_class_biases(keys: set[str]) -> set[str]:
    """Of each class branch the bias with the highest number: that of the logits."""
    found: dict[str, str] = {}
    for key in keys:
        branch, _, part = key.removeprefix(f"{HEAD}cls_branches.").partition(".")
        if key.startswith(f"{HEAD}cls_branches.") and part.endswith("bias"):
            held = found.get(branch)
            if held is None or _layer(key) > _layer(held):
                found[branch] = key
    return set(found.values())


def _layer(key: str) -> int:
    return int(key.split(".")[-2])
