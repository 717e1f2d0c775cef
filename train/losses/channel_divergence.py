"""Channel-wise distillation of perspective-view maps.

Shapes: B batch, N cameras, C channels, H W map height and width, I = B·N images, S = H·W positions.
Source: Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, eq. 3, in the
cross-entropy form of the released HeatmapDistiller (the teacher's entropy is a constant).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from train.losses.checks import check_shapes, compute_dtype

UNSEEN = 1e30


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
        self, student_BNCHW: Tensor, teacher_BNCHW: Tensor, seen_BNHW: Tensor | None = None
    ) -> Tensor:
        """Scalar: cross-entropy summed over positions, × τ², divided by the number of channels and images.

        Never zero, not even for equal maps: then it is the teacher's entropy. Only the student gets gradient.

        Args:
            seen_BNHW: bool, the positions that count in both maps; None: all. An image without one counts as
                zero.

        Raises ShapeMismatch when the maps differ in any dimension.
        """
        check_shapes(
            "ChannelWiseDivergence",
            student=(student_BNCHW, (None,) * 5),
            teacher=(teacher_BNCHW, tuple(student_BNCHW.shape)),
            **({} if seen_BNHW is None else {"seen": (seen_BNHW, _without_channels(student_BNCHW))}),
        )
        B, N, C = student_BNCHW.shape[:3]
        student_ICS = student_BNCHW.flatten(0, 1).flatten(2)
        teacher_ICS = teacher_BNCHW.flatten(0, 1).flatten(2)
        seen_IS = None if seen_BNHW is None else seen_BNHW.flatten(0, 1).flatten(1)
        entropy = _SpatialCrossEntropy.apply(student_ICS, teacher_ICS, self.tau, seen_IS)
        return entropy * (self.weight * self.tau**2 / max(B * N * C, 1))


class _SpatialCrossEntropy(torch.autograd.Function):
    """Sum over images and channels of -Σ p(teacher) log p(student), with p = softmax over S of map / τ.

    In float32 one image at a time, in both directions: autograd would keep the float32 softmaxes of all
    images and levels until the backward pass, four times the bytes of the stored maps. The gradient
    (p(student) - p(teacher)) / τ needs nothing but the two maps.
    """

    @staticmethod
    def forward(
        ctx, student_ICS: Tensor, teacher_ICS: Tensor, tau: float, seen_IS: Tensor | None = None
    ) -> Tensor:
        ctx.save_for_backward(student_ICS, teacher_ICS)
        ctx.tau, ctx.seen_IS = tau, seen_IS
        dtype = compute_dtype(student_ICS)
        total = torch.zeros((), dtype=dtype, device=student_ICS.device)
        for image, (student_CS, teacher_CS) in enumerate(zip(student_ICS, teacher_ICS, strict=True)):
            seen_S = None if seen_IS is None else seen_IS[image]
            log_student = _scaled(student_CS, tau, dtype, seen_S).log_softmax(-1)
            entropy = -(_scaled(teacher_CS, tau, dtype, seen_S).softmax(-1) * log_student).sum()
            total += entropy if seen_S is None else entropy * seen_S.any()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        student_ICS, teacher_ICS = ctx.saved_tensors
        dtype = compute_dtype(student_ICS)
        grad_ICS = torch.empty_like(student_ICS)
        for image, grad_CS in enumerate(grad_ICS):
            seen_S = None if ctx.seen_IS is None else ctx.seen_IS[image]
            difference = _scaled(student_ICS[image], ctx.tau, dtype, seen_S).softmax(-1)
            difference -= _scaled(teacher_ICS[image], ctx.tau, dtype, seen_S).softmax(-1)
            grad_CS.copy_(difference * (grad / ctx.tau))
        return grad_ICS, None, None, None


def _scaled(map_CS: Tensor, tau: float, dtype: torch.dtype, seen_S: Tensor | None) -> Tensor:
    """The exponents; where nothing was seen one that is as good as no chance, and finite."""
    scaled = map_CS.to(dtype) / tau
    return scaled if seen_S is None else scaled.masked_fill(~seen_S, -UNSEEN)


def _without_channels(maps_BNCHW: Tensor) -> tuple[int, ...]:
    return (*maps_BNCHW.shape[:2], *maps_BNCHW.shape[3:])
