"""What a student's head takes over from a teacher's before its training starts.

Sampling offsets are learnt in cells, so a copy on a map of other cells would look at other places: they are
scaled to reach as far in metres, or in camera pixels, as they did in the teacher.

Shapes: M heads, L image levels, P sampling points, C channels, H W BEV cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from camera3d.detectors.query_based.start import HEAD, query_start, shape_of
from camera3d.errors import StartUnfit

ENCODER = (
    "transformer.encoder.",
    "transformer.can_bus_mlp.",
    "transformer.level_embeds",
    "transformer.cams_embeds",
)
BEV_EMBEDDING = "bev_embedding.weight"
BEV_SIDES = ("positional_encoding.row_embed.weight", "positional_encoding.col_embed.weight")


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

    What `query_start` takes, with offsets scaled; `head_and_encoder` also every part of the encoder that
    fits, with the embeddings of the BEV cells resized.

    Args:
        kind, teacher, student: see `query_start`.
        num_heads: of every attention.

    Raises:
        StartUnfit: a part that must fit does not.
    """
    taken = query_start(kind, teacher, student)
    if kind == "head_and_encoder":
        absent = [name for name in (BEV_EMBEDDING, *BEV_SIDES) if HEAD + name not in teacher]
        if absent:
            raise StartUnfit(
                [
                    f"{name}: not among the stored weights; dump again, or take init_from_teacher='head'"
                    for name in absent
                ]
            )
        encoder = [key for key in student if key.removeprefix(HEAD).startswith(ENCODER)]
        taken |= {key: teacher[key] for key in encoder if shape_of(student, key) == shape_of(teacher, key)}
    taken = {
        key: _rescaled(key, value, teacher_scale, student_scale, num_heads) for key, value in taken.items()
    }
    if kind == "head_and_encoder":
        taken |= _resized_embeddings(teacher, teacher_scale.bev_hw, student_scale.bev_hw)
    return taken


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
