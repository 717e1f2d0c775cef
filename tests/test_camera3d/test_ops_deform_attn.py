"""Multi-scale deformable attention: against mmcv's reference, its gradients and its edges."""

from dataclasses import dataclass

import pytest
import torch

from camera3d.errors import ShapeMismatch
from camera3d.ops import deform_attn as implementation
from camera3d.ops import multi_scale_deformable_attention, op_backend, use_backend
from camera3d.ops.backend import mmcv_function

needs_mmcv = pytest.mark.skipif(
    mmcv_function("multi_scale_deformable_attention") is None, reason="mmcv has no compiled extension"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@dataclass(frozen=True)
class Case:
    id: str
    maps: tuple[tuple[int, int], ...] = ((6, 9), (3, 5))
    batch: int = 2
    queries: int = 7
    heads: int = 2
    channels: int = 4
    points: int = 3
    spread: float = 0.4  # of the locations around the map's centre; above 0.5 they leave the map

    def inputs(self, dtype=torch.float64, seed=0):
        generator = torch.Generator().manual_seed(seed)
        cells = sum(h * w for h, w in self.maps)
        lead = (self.batch, self.queries, self.heads, len(self.maps), self.points)
        value = torch.randn(self.batch, cells, self.heads, self.channels, generator=generator, dtype=dtype)
        noise = torch.rand(*lead, 2, generator=generator, dtype=dtype)
        locations = 0.5 + self.spread * (2 * noise - 1)
        attention = torch.rand(lead, generator=generator, dtype=dtype)
        return value, locations, attention


CASES = [
    Case("inside"),
    Case("mostly outside", spread=3.0),
    Case("one level", maps=((5, 4),), spread=0.7),
    Case("four levels", maps=((8, 10), (4, 5), (2, 3), (1, 2)), spread=0.7),
    Case("a row, a column, a cell", maps=((1, 6), (6, 1), (1, 1)), spread=1.2),
    Case("batch of one", batch=1, spread=0.7),
    Case("one query, one head, one point", queries=1, heads=1, points=1, spread=0.7),
]


def mmcvs_reference(value, maps, locations, attention):
    # Pure PyTorch, but mmcv imports it together with its extension.
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    return multi_scale_deformable_attn_pytorch(value, maps, locations, attention)


def on_maps(function, case):
    return lambda value, locations, attention: function(value, case.maps, locations, attention)


def gradients(function, inputs):
    leaves = [t.detach().clone().requires_grad_() for t in inputs]
    out = function(*leaves)
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    return out.detach(), torch.autograd.grad(out, leaves, probe.to(out.device))


@needs_mmcv
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
def test_agrees_with_mmcvs_reference(case):
    ours = gradients(on_maps(multi_scale_deformable_attention, case), case.inputs())
    reference = gradients(on_maps(mmcvs_reference, case), case.inputs())
    assert ours[0].shape == (case.batch, case.queries, case.heads * case.channels)
    # float64, and the same sums in another order.
    for got, expected in zip((ours[0], *ours[1]), (reference[0], *reference[1]), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@needs_mmcv
def test_agrees_in_float32():
    case = Case("larger", maps=((40, 50), (20, 25)), queries=300, heads=8, channels=32, points=8, spread=0.6)
    value, locations, attention = case.inputs(torch.float32)
    expected = mmcvs_reference(value, case.maps, locations, attention)
    got = multi_scale_deformable_attention(value, case.maps, locations, attention)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES[:1] + CASES[3:5], ids=lambda c: c.id)
def test_gradcheck(case):
    leaves = [t.requires_grad_() for t in case.inputs()]
    assert torch.autograd.gradcheck(on_maps(multi_scale_deformable_attention, case), leaves, fast_mode=True)


def test_chunks_equal_the_whole(monkeypatch):
    case = Case("chunked", queries=23)
    value, locations, attention = case.inputs()
    whole = multi_scale_deformable_attention(value, case.maps, locations, attention)
    monkeypatch.setattr(implementation, "POINTS_PER_CHUNK", {"cpu": 50})
    chunked = multi_scale_deformable_attention(value, case.maps, locations, attention)
    torch.testing.assert_close(chunked, whole, rtol=0, atol=0)


def test_single_equals_batched():
    case = Case("batched", batch=3)
    value, locations, attention = case.inputs(torch.float32)
    batched = multi_scale_deformable_attention(value, case.maps, locations, attention)
    for i in range(case.batch):
        part = slice(i, i + 1)
        single = multi_scale_deformable_attention(value[part], case.maps, locations[part], attention[part])
        assert torch.equal(single, batched[part])


def test_runs_are_identical():
    case = Case("repeated", maps=((30, 40),), queries=500, heads=4, channels=8, spread=0.6)
    runs = [
        gradients(on_maps(multi_scale_deformable_attention, case), case.inputs(torch.float32))
        for _ in range(3)
    ]
    for out, grads in runs[1:]:
        assert torch.equal(out, runs[0][0])
        assert all(torch.equal(a, b) for a, b in zip(grads, runs[0][1], strict=True))


@pytest.mark.parametrize(("batch", "queries"), [(2, 0), (0, 5), (0, 0)])
def test_empty(batch, queries):
    case = Case("empty", batch=batch, queries=queries)
    leaves = [t.requires_grad_() for t in case.inputs(torch.float32)]
    out = multi_scale_deformable_attention(leaves[0], case.maps, *leaves[1:])
    assert out.shape == (batch, queries, case.heads * case.channels)
    out.sum().backward()
    assert all(torch.count_nonzero(t.grad) == 0 for t in leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_coordinates(dtype):
    case = Case("half", maps=((200, 200),), queries=50, heads=2, channels=8)
    value, locations, attention = case.inputs(torch.float32)
    got = multi_scale_deformable_attention(value.to(dtype), case.maps, locations, attention)
    expected = multi_scale_deformable_attention(value.to(dtype).float(), case.maps, locations, attention)
    assert got.dtype is dtype
    # Only the sum is rounded, not where it looks: a few units in the last place of values around 2.
    torch.testing.assert_close(got.float(), expected, rtol=0, atol=16 * torch.finfo(dtype).eps)


def test_autocast_changes_nothing():
    case = Case("autocast")
    value, locations, attention = case.inputs(torch.float32)
    plain = multi_scale_deformable_attention(value, case.maps, locations, attention)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(multi_scale_deformable_attention(value, case.maps, locations, attention), plain)


def test_not_a_number_reaches_only_its_query():
    case = Case("nan", queries=4, heads=3)
    value, locations, attention = case.inputs(torch.float32)
    clean = multi_scale_deformable_attention(value, case.maps, locations, attention)
    locations[0, 2, 0, 0, 0, 0] = torch.nan
    locations[1, 3, 0, 0, 0, 1] = torch.inf
    got = multi_scale_deformable_attention(value, case.maps, locations, attention)
    assert got[0, 2, : case.channels].isnan().all()
    untouched = torch.ones(2, 4, dtype=torch.bool)
    untouched[0, 2] = untouched[1, 3] = False
    assert torch.equal(got[untouched], clean[untouched])
    assert got[1, 3].isfinite().all()


def test_strided_inputs():
    case = Case("strided", spread=0.7)
    value, locations, attention = case.inputs()
    expected = multi_scale_deformable_attention(value, case.maps, locations, attention)
    strided = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (value, locations, attention)]
    torch.testing.assert_close(
        multi_scale_deformable_attention(strided[0], case.maps, *strided[1:]), expected
    )


def test_every_mismatch_is_reported():
    case = Case("wrong")
    value, locations, attention = case.inputs()
    with pytest.raises(ShapeMismatch) as error:
        multi_scale_deformable_attention(value[:, :-1, :1], case.maps, locations, attention[:, 1:])
    assert "attention_weights: expected (2, 7, 2, 2, 3)" in str(error.value)
    with pytest.raises(ShapeMismatch, match=r"make 69 cells, got 68.*\(B, heads, levels\) = \(2, 1, 2\)"):
        multi_scale_deformable_attention(value[:, :-1, :1], case.maps, locations, attention)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@pytest.mark.parametrize("backend", ["pytorch", "mmcv"])
def test_cuda_agrees_with_cpu(case, backend):
    if backend == "mmcv" and op_backend("multi_scale_deformable_attention", "cuda") != "mmcv":
        pytest.skip("mmcv has no CUDA kernel in this build")

    def run(*inputs):
        with use_backend(backend if inputs[0].is_cuda else "pytorch"):
            return multi_scale_deformable_attention(inputs[0], case.maps, *inputs[1:])

    expected = gradients(run, case.inputs())
    got = gradients(run, [t.cuda() for t in case.inputs()])
    for a, b in zip((got[0], *got[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-9, atol=1e-9)
