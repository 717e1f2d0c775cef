"""Modulated deformable convolution: the PyTorch form against mmcv's compiled kernel, and its edges."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

from camera3d.errors import ShapeMismatch
from camera3d.ops import deform_conv as implementation
from camera3d.ops import modulated_deform_conv2d, op_backend, use_backend
from camera3d.ops.backend import mmcv_function

OP = "modulated_deform_conv2d"
needs_mmcv = pytest.mark.skipif(mmcv_function(OP) is None, reason="mmcv has no compiled extension")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@dataclass(frozen=True)
class Case:
    id: str
    batch: int = 2
    channels: int = 4
    out_channels: int = 6
    size: tuple[int, int] = (7, 9)
    kernel: tuple[int, int] = (3, 3)
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, int] = 1
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    deform_groups: int = 1
    bias: bool = False
    reach: float = 1.5  # standard deviation of the offsets, in pixels

    @property
    def options(self):
        names = ("stride", "padding", "dilation", "groups", "deform_groups")
        return {name: getattr(self, name) for name in names}

    def inputs(self, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=dtype)

        x = normal(self.batch, self.channels, *self.size)
        weight = normal(self.out_channels, self.channels // self.groups, *self.kernel)
        taps = self.kernel[0] * self.kernel[1] * self.deform_groups
        plain = {k: v for k, v in self.options.items() if k in ("stride", "padding", "dilation", "groups")}
        out = F.conv2d(x[:1] if self.batch else x.new_zeros(1, *x.shape[1:]), weight, **plain).shape[2:]
        offset = self.reach * normal(self.batch, 2 * taps, *out)
        modulation = normal(self.batch, taps, *out).sigmoid()
        return [x, offset, modulation, weight] + ([normal(self.out_channels)] if self.bias else [])

    def __call__(self, *inputs):
        return modulated_deform_conv2d(*inputs, **self.options)


CASES = [
    Case("plain 3×3"),
    Case("bias", bias=True),
    Case("far outside", reach=20.0),
    Case("stride 2", stride=2, size=(8, 11)),
    Case("dilation 2", dilation=2, padding=2),
    Case("uneven everything", kernel=(3, 2), stride=(2, 1), padding=(0, 1), dilation=(1, 2), size=(9, 8)),
    Case("deform_groups 2", deform_groups=2),
    Case("groups 2", groups=2, bias=True),
    Case("groups 2, deform_groups 4", groups=2, deform_groups=4, stride=2),
    Case("batch of one", batch=1),
    Case("one row", size=(1, 9)),
    Case("one column", size=(7, 1)),
    Case("one cell, one tap", size=(1, 1), kernel=(1, 1), padding=0),
    # Every sample on a cell centre or exactly one cell outside: where the derivative has two sides.
    Case("zero offsets", reach=0.0),
]


def gradients(function, inputs):
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = function(*leaves)
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return out.detach(), torch.autograd.grad(out, leaves, probe.to(out.device))


def on(backend, case):
    def run(*inputs):
        with use_backend(backend):
            return case(*inputs)

    return run


@needs_mmcv
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)], ids=str)
def test_agrees_with_mmcvs_kernel(case, dtype, tolerance):
    ours, ours_grads = gradients(on("pytorch", case), case.inputs(dtype))
    mmcvs, mmcvs_grads = gradients(on("mmcv", case), case.inputs(dtype))
    torch.testing.assert_close(ours, mmcvs, rtol=tolerance, atol=tolerance)
    # Gradients sum over more terms: an order of magnitude more rounding.
    for got, expected in zip(ours_grads, mmcvs_grads, strict=True):
        torch.testing.assert_close(got, expected, rtol=10 * tolerance, atol=10 * tolerance)


@needs_mmcv
def test_agrees_at_a_backbones_width():
    case = Case("wide", batch=1, channels=256, out_channels=256, size=(15, 25))
    inputs = case.inputs(torch.float32)
    inputs[3] *= 0.02  # as trained: outputs of order one
    torch.testing.assert_close(on("pytorch", case)(*inputs), on("mmcv", case)(*inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["pytorch", pytest.param("mmcv", marks=needs_mmcv)])
@pytest.mark.parametrize("case", [CASES[1], CASES[5], CASES[8], CASES[10]], ids=lambda c: c.id)
def test_gradcheck(case, backend):
    leaves = [t.requires_grad_() for t in case.inputs()]
    assert torch.autograd.gradcheck(on(backend, case), leaves, fast_mode=True)


@pytest.mark.parametrize("case", [CASES[1], CASES[3], CASES[7]], ids=lambda c: c.id)
def test_without_offsets_it_is_a_convolution(case):
    x, offset, modulation, *parameters = case.inputs()
    out = case(x, torch.zeros_like(offset), torch.ones_like(modulation), *parameters)
    options = {k: v for k, v in case.options.items() if k != "deform_groups"}
    torch.testing.assert_close(out, F.conv2d(x, *parameters, **options))


def test_chunks_and_batches_equal_the_whole(monkeypatch):
    case = Case("chunked", batch=3, deform_groups=2, groups=2)
    inputs = case.inputs()
    whole = case(*inputs)
    monkeypatch.setattr(implementation, "PIXELS_PER_CHUNK", 10)
    # The matrix product may group its sums by the number of rows.
    torch.testing.assert_close(case(*inputs), whole, rtol=1e-13, atol=1e-13)
    single = case(*(t[1:2] for t in inputs[:3]), inputs[3])
    torch.testing.assert_close(single, whole[1:2], rtol=1e-13, atol=1e-13)


def test_gradients_do_not_change_the_result():
    case = Case("with and without")
    inputs = case.inputs()
    out, _ = gradients(case, inputs)
    torch.testing.assert_close(case(*inputs), out, rtol=1e-13, atol=1e-13)


def test_runs_are_identical():
    case = Case("repeated", channels=16, out_channels=16, size=(20, 30))
    runs = [gradients(on("pytorch", case), case.inputs(torch.float32)) for _ in range(3)]
    for out, grads in runs[1:]:
        assert torch.equal(out, runs[0][0])
        assert all(torch.equal(a, b) for a, b in zip(grads, runs[0][1], strict=True))


def test_frozen_inputs_get_no_gradient():
    case = Case("frozen backbone, trained offsets")
    inputs = case.inputs()
    inputs[1].requires_grad_()
    case(*inputs).sum().backward()
    assert inputs[1].grad.abs().sum() > 0
    assert inputs[0].grad is None


def test_empty_batch():
    case = Case("empty", batch=0, bias=True)
    leaves = [t.requires_grad_() for t in case.inputs(torch.float32)]
    out = case(*leaves)
    assert out.shape == (0, 6, 7, 9)
    out.sum().backward()
    assert all(torch.count_nonzero(t.grad) == 0 for t in leaves)


@pytest.mark.parametrize("backend", ["pytorch", pytest.param("mmcv", marks=needs_mmcv)])
def test_memory_format_is_kept(backend):
    case = Case("channels-last")
    x, *rest = case.inputs()
    plain = on(backend, case)(x, *rest)
    out = on(backend, case)(x.to(memory_format=torch.channels_last), *rest)
    assert plain.is_contiguous()
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out, plain, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", ["pytorch", pytest.param("mmcv", marks=needs_mmcv)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_positions(backend, dtype):
    # A channel that holds its own column number shows where the taps looked.
    width = 600
    x = torch.arange(width, dtype=torch.float32).expand(1, 1, 1, width).contiguous() / 512
    offset = torch.zeros(1, 2, 1, width)
    offset[:, 1] = 0.25
    inputs = [x, offset, torch.ones(1, 1, 1, width), torch.ones(1, 1, 1, 1)]
    with use_backend(backend):
        out = modulated_deform_conv2d(*(t.to(dtype) for t in inputs))
    assert out.dtype is dtype
    expected = (torch.arange(width - 1) + 0.25) / 512
    error = (out.float()[0, 0, 0, :-1] - expected).abs()
    assert (error <= 2 * torch.finfo(dtype).eps * expected.clamp(min=1 / 512)).all()


@pytest.mark.parametrize("backend", ["pytorch", pytest.param("mmcv", marks=needs_mmcv)])
def test_autocast_returns_what_conv2d_would(backend):
    case = Case("autocast", bias=True)
    inputs = [t.requires_grad_() for t in case.inputs(torch.float32)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = on(backend, case)(*inputs)
        assert out.dtype is F.conv2d(inputs[0], inputs[3]).dtype is torch.bfloat16
    torch.testing.assert_close(out.float(), case(*inputs), rtol=0.05, atol=0.1)
    out.float().sum().backward()
    assert all(t.grad.dtype is torch.float32 for t in inputs)


def test_every_mismatch_is_reported():
    case = Case("wrong")
    x, offset, modulation, weight = case.inputs()
    with pytest.raises(ShapeMismatch) as error:
        case(x, offset[:, 1:], modulation[..., 1:], weight, torch.zeros(5))
    for part in (
        "offset: expected (2, 18, 7, 9)",
        "modulation: expected (2, 9, 7, 9)",
        "bias: expected (6,)",
    ):
        assert part in str(error.value)
    with pytest.raises(ShapeMismatch, match="3 does not divide the 4 input channels"):
        modulated_deform_conv2d(x, offset, modulation, weight, padding=1, deform_groups=3)
    with pytest.raises(ShapeMismatch, match="too small"):
        modulated_deform_conv2d(x, offset, modulation, weight, dilation=9)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize("backend", ["pytorch", "mmcv"])
def test_cuda_agrees_with_cpu(case, backend):
    if backend == "mmcv" and op_backend(OP, "cuda") != "mmcv":
        pytest.skip("mmcv has no CUDA kernel in this build")
    expected = gradients(on("pytorch", case), case.inputs())
    got = gradients(on(backend, case), [t.cuda() for t in case.inputs()])
    for a, b in zip((got[0], *got[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)
