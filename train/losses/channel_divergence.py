"""Channel-wise distillation of perspective-view maps.

Shapes: B batch, N cameras, C channels, H W map height and width, I = B·N images, S = H·W positions.
Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, eq. 3, in the
cross-entropy form of the released HeatmapDistiller (the teacher's entropy is a constant).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from train.losses.checks import check_shapes, compute_dtype
from train.losses.regions import Regions, weights_of


class ChannelWiseDivergence(nn.Module):
    """Match where each channel looks: softmax over space, one distribution a channel.

    Args:
        tau: temperature, > 0.
        weight: factor on the returned loss.
    """

    def __init__(self, *, tau: float = 2.0, weight: float = 0.25) -> None:
        super().__init__()
        self.tau, self.weight = tau, weight

    def forward(
        self, student_BNCHW: Tensor, teacher_BNCHW: Tensor, where_BNHW: Regions | None = None
    ) -> Tensor:
        """Scalar: cross-entropy summed over positions, × τ², divided by the number of channels and images.

        Never zero, not even for equal maps: then it is the teacher's entropy. Only the student gets gradient.

        Args:
            where_BNHW: positive at the positions that the distributions are over; None: all of them. An image
                without such a position counts as zero.

        Raises ShapeMismatch when the maps differ in any dimension.
        """
        check_shapes(
            "ChannelWiseDivergence",
            student=(student_BNCHW, (None,) * 5),
            teacher=(teacher_BNCHW, tuple(student_BNCHW.shape)),
        )
        B, N, C, H, W = student_BNCHW.shape
        where_IS = None
        if where_BNHW is not None:
            where = weights_of(where_BNHW)
            check_shapes("ChannelWiseDivergence", where=(where, (B, N, H, W)))
            where_IS = (where > 0).flatten(0, 1).flatten(1)
        student_ICS = student_BNCHW.flatten(0, 1).flatten(2)
        teacher_ICS = teacher_BNCHW.flatten(0, 1).flatten(2)
        entropy = _SpatialCrossEntropy.apply(student_ICS, teacher_ICS, where_IS, self.tau)
        return entropy * (self.weight * self.tau**2 / max(B * N * C, 1))


class _SpatialCrossEntropy(torch.autograd.Function):
    """Sum over images and channels of -Σ p(teacher) log p(student), with p = softmax over S of map / τ.

    In float32 one image at a time, in both directions: autograd would keep the float32 softmaxes of all
    images and levels until the backward pass, four times the bytes of the stored maps. The gradient
    (p(student) - p(teacher)) / τ needs nothing but the two maps. Positions outside of `where_IS`, if it is
    given, have probability zero and count as nothing.
    """

    @staticmethod
    def forward(ctx, student_ICS: Tensor, teacher_ICS: Tensor, where_IS: Tensor | None, tau: float) -> Tensor:
        ctx.save_for_backward(student_ICS, teacher_ICS, where_IS)
        ctx.tau = tau
        total = torch.zeros((), dtype=compute_dtype(student_ICS), device=student_ICS.device)
        for student_CS, teacher_CS, out_S in _images(student_ICS, teacher_ICS, where_IS, tau):
            terms = teacher_CS.softmax(-1) * student_CS.log_softmax(-1)
            total -= (terms if out_S is None else terms.masked_fill(out_S, 0)).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        student_ICS, teacher_ICS, where_IS = ctx.saved_tensors
        grad_ICS = torch.empty_like(student_ICS)
        images = _images(student_ICS, teacher_ICS, where_IS, ctx.tau)
        for grad_CS, (student_CS, teacher_CS, out_S) in zip(grad_ICS, images, strict=True):
            difference = student_CS.softmax(-1)
            difference -= teacher_CS.softmax(-1)
            if out_S is not None:
                difference.masked_fill_(out_S, 0)
            grad_CS.copy_(difference * (grad / ctx.tau))
        return grad_ICS, None, None, None


def _images(
    student_ICS: Tensor, teacher_ICS: Tensor, where_IS: Tensor | None, tau: float
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Of each image the two maps / τ, -inf where it does not count, and where that is."""
    dtype = compute_dtype(student_ICS)
    for i, maps in enumerate(zip(student_ICS, teacher_ICS, strict=True)):
        student_CS, teacher_CS = (feats_CS.to(dtype) / tau for feats_CS in maps)
        if where_IS is None:
            yield student_CS, teacher_CS, None
        else:
            out_S = ~where_IS[i]
            yield student_CS.masked_fill(out_S, -torch.inf), teacher_CS.masked_fill(out_S, -torch.inf), out_S
