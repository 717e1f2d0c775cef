"""What a student's head takes over from a teacher's before its training starts.

Sampling offsets are learnt in cells, so a copy on a map of other cells would look at other places: they are
scaled to reach as far in metres, or in camera pixels, as they did in the teacher.

Shapes: M heads, L image levels, P sampling points, C channels, H W BEV cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from camera3d.errors import Camera3DError, shown

HEAD = "pts_bbox_head."
QUERIES = ("query_embedding.",)
BRANCHES = ("cls_branches.", "reg_branches.")
DECODER = ("transformer.decoder.", "transformer.reference_points.")
ENCODER = (
    "transformer.encoder.",
    "transformer.can_bus_mlp.",
    "transformer.level_embeds",
    "transformer.cams_embeds",
)
BEV_EMBEDDING = "bev_embedding.weight"
BEV_SIDES = ("positional_encoding.row_embed.weight", "positional_encoding.col_embed.weight")
# `released` is where FocalDistiller's student starts: its code copies the whole head and then initialises the
# student, which draws the transformer anew and sets the last class bias back to its prior.
STARTS = ("none", "released", "head", "head_and_encoder")


class StartUnfit(Camera3DError):
    """A teacher's head does not fit the student's. `faults` has a line for each reason."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(f"the head cannot start from the teacher's:\n{shown(self.faults)}")


@dataclass(frozen=True, kw_only=True)
class HeadScale:
    """What a detector's cells cover.

    Attributes:
        bev_hw: cells of the BEV map along y and x.
        point_cloud_range: x, y, z minimum, then maximum, in metres.
        pv_cell_pixels: camera pixels a cell of each image level, before any scaling of the image.
    """

    bev_hw: tuple[int, int]
    point_cloud_range: tuple[float, ...]
    pv_cell_pixels: tuple[float, ...]

    def bev_cell_m(self) -> tuple[float, float]:
        """Extent of a BEV cell along x and y."""
        low, high = self.point_cloud_range[:2], self.point_cloud_range[3:5]
        height, width = self.bev_hw
        return (high[0] - low[0]) / width, (high[1] - low[1]) / height


def start_weights(
    kind: str,
    teacher: Mapping[str, Tensor],
    student: Mapping[str, Tensor],
    *,
    teacher_scale: HeadScale,
    student_scale: HeadScale,
    num_heads: int,
) -> dict[str, Tensor]:
    """The weights of a student's head, by full key, that start from the teacher's.

    `released` takes queries and branches but for the last class bias, `head` takes queries, branches and the
    whole decoder, `head_and_encoder` also every part of the encoder that fits, with the embeddings of the BEV
    cells resized.

    Args:
        kind: one of STARTS.
        teacher, student: weights by key, all that begin with `pts_bbox_head.`.
        num_heads: of every attention.

    Raises:
        StartUnfit: a part that must fit does not, or the maps cover other metres.
    """
    if kind == "none":
        return {}
    if teacher_scale.point_cloud_range != student_scale.point_cloud_range:
        raise StartUnfit(
            [
                f"point_cloud_range: the student's is {student_scale.point_cloud_range}, the teacher's"
                f" {teacher_scale.point_cloud_range}; its queries sit at fractions of it"
            ]
        )
    wanted = (*QUERIES, *BRANCHES) if kind == "released" else (*QUERIES, *BRANCHES, *DECODER)
    keys = [key for key in student if key.removeprefix(HEAD).startswith(wanted)]
    theirs = {key for key in teacher if key.removeprefix(HEAD).startswith(wanted)}
    faults = [
        f"{key}: {_shape(student, key)} in the student, {_shape(teacher, key)} in the teacher"
        for key in sorted({*keys, *theirs})
        if _shape(student, key) != _shape(teacher, key)
    ]
    if kind == "head_and_encoder":
        encoder = [key for key in student if key.removeprefix(HEAD).startswith(ENCODER)]
        keys += [key for key in encoder if _shape(student, key) == _shape(teacher, key)]
        absent = [name for name in (BEV_EMBEDDING, *BEV_SIDES) if HEAD + name not in teacher]
        faults += [
            f"{name}: not among the stored weights; dump again, or take init_from_teacher='head'"
            for name in absent
        ]
    if faults:
        raise StartUnfit(faults)
    if kind == "released":
        last_bias = _last_class_biases(keys)
        return {key: teacher[key].clone() for key in keys if key not in last_bias}
    taken = {key: _rescaled(key, teacher[key], teacher_scale, student_scale, num_heads) for key in keys}
    if kind == "head_and_encoder":
        taken |= _resized_embeddings(teacher, teacher_scale.bev_hw, student_scale.bev_hw)
    return taken


def _shape(weights: Mapping[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(weights[key].shape) if key in weights else None


def _last_class_biases(keys: Sequence[str]) -> set[str]:
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


def _rescaled(key: str, value: Tensor, teacher: HeadScale, student: HeadScale, num_heads: int) -> Tensor:
    """A copy; of sampling offsets one that reaches as far on the student's map.

    Rows of offsets are heads, then levels where there are images, then points, then x and y.
    """
    if ".sampling_offsets." not in key:
        return value.clone()
    if ".deformable_attention." in key:
        pairs = zip(teacher.pv_cell_pixels, student.pv_cell_pixels, strict=True)
        ratio_LP2 = value.new_tensor([theirs / own for theirs, own in pairs])[:, None, None]
        rows = value.view(num_heads, len(ratio_LP2), -1, 2, *value.shape[1:])
    else:
        pairs = zip(teacher.bev_cell_m(), student.bev_cell_m(), strict=True)
        ratio_LP2 = value.new_tensor([theirs / own for theirs, own in pairs])[None, None]
        rows = value.view(1, 1, -1, 2, *value.shape[1:])
    return (rows * ratio_LP2.view(*ratio_LP2.shape, *[1] * (value.dim() - 1))).view(value.shape)


def _resized_embeddings(
    teacher: Mapping[str, Tensor], teacher_hw: tuple[int, int], student_hw: tuple[int, int]
) -> dict[str, Tensor]:
    """The learnt queries and positions of the BEV cells on a map of another size, interpolated."""
    grid_1CHW = teacher[HEAD + BEV_EMBEDDING].T.reshape(1, -1, *teacher_hw)
    resized = {BEV_EMBEDDING: _resized(grid_1CHW, student_hw).flatten(2)}
    for name, count in zip(BEV_SIDES, student_hw, strict=True):
        resized[name] = _resized(teacher[HEAD + name].T[None, :, :, None], (count, 1)).flatten(2)
    return {HEAD + name: value[0].T.contiguous() for name, value in resized.items()}


def _resized(maps_1CHW: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps_1CHW, size=size, mode="bilinear", align_corners=False)
