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


class ChannelWiseDivergence(nn.Module):
    """Match where each channel looks: softmax over space, one distribution a channel.

    Args:
        tau: temperature, > 0.
        weight: factor on the returned loss.
    """

    def __init__(self, *, tau: float = 2.0, weight: float = 0.25) -> None:
        super().__init__()
        self.tau, self.weight = tau, weight

    def forward(self, student_BNCHW: Tensor, teacher_BNCHW: Tensor) -> Tensor:
        """Scalar: cross-entropy summed over positions, × τ², divided by the number of channels and images.

        Never zero, not even for equal maps: then it is the teacher's entropy. Only the student gets gradient.
        Raises ShapeMismatch when the maps differ in any dimension.
        """
        check_shapes(
            "ChannelWiseDivergence",
            student=(student_BNCHW, (None,) * 5),
            teacher=(teacher_BNCHW, tuple(student_BNCHW.shape)),
        )
        B, N, C = student_BNCHW.shape[:3]
        student_ICS = student_BNCHW.flatten(0, 1).flatten(2)
        teacher_ICS = teacher_BNCHW.flatten(0, 1).flatten(2)
        entropy = _SpatialCrossEntropy.apply(student_ICS, teacher_ICS, self.tau)
        return entropy * (self.weight * self.tau**2 / max(B * N * C, 1))


class _SpatialCrossEntropy(torch.autograd.Function):
    """Sum over images and channels of -Σ p(teacher) log p(student), with p = softmax over S of map / τ.

    In float32 one image at a time, in both directions: autograd would keep the float32 softmaxes of all
    images and levels until the backward pass, four times the bytes of the stored maps. The gradient
    (p(student) - p(teacher)) / τ needs nothing but the two maps.
    """

    @staticmethod
    def forward(ctx, student_ICS: Tensor, teacher_ICS: Tensor, tau: float) -> Tensor:
        ctx.save_for_backward(student_ICS, teacher_ICS)
        ctx.tau = tau
        dtype = compute_dtype(student_ICS)
        total = torch.zeros((), dtype=dtype, device=student_ICS.device)
        for student_CS, teacher_CS in zip(student_ICS, teacher_ICS, strict=True):
            log_student = (student_CS.to(dtype) / tau).log_softmax(-1)
            total -= ((teacher_CS.to(dtype) / tau).softmax(-1) * log_student).sum()
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        student_ICS, teacher_ICS = ctx.saved_tensors
        dtype = compute_dtype(student_ICS)
        grad_ICS = torch.empty_like(student_ICS)
        for grad_CS, student_CS, teacher_CS in zip(grad_ICS, student_ICS, teacher_ICS, strict=True):
            difference = (student_CS.to(dtype) / ctx.tau).softmax(-1)
            difference -= (teacher_CS.to(dtype) / ctx.tau).softmax(-1)
            grad_CS.copy_(difference * (grad / ctx.tau))
        return grad_ICS, None, None
