"""What every distillation term must keep: batches, empty samples, precision, gradients, shape checks."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import train.losses
from train.losses import (
    AreaL2,
    BevRestore,
    ChannelWiseDivergence,
    FocalSampling,
    HeatmapL2,
    ImageFocalSampling,
    MaskedGeneration,
    MaskedGenerator,
    QueryAlignment,
    ShapeMismatch,
)

L, Q, M, P, C, K = 2, 5, 2, 3, 4, 3


class OnTwoLevels(nn.Module):
    """Takes the maps of two levels one by one, as all cases hand tensors over."""

    def __init__(self, term: nn.Module) -> None:
        super().__init__()
        self.term = term

    def forward(self, fine, coarse, *reads):
        return self.term([fine, coarse], *reads)


@dataclass(frozen=True)
class Case:
    """A term, and how to make its inputs.

    Attributes:
        term: built anew for each test, in the wanted type.
        inputs: (samples, dtype) to keyword-like list of tensors; what the student makes comes first.
        students: how many of the inputs are the student's.
        batch_dim: of every input.
        gate: which input says where the term looks; all zeros there is an empty sample.
    """

    id: str
    term: Callable[[], nn.Module]
    inputs: Callable[[int, torch.Generator], list[Tensor]]
    students: int
    batch_dims: tuple[int, ...]
    gate: int | None


def randn(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=torch.float64)


def rand(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng, dtype=torch.float64)


def area(rng: torch.Generator, *shape: int) -> Tensor:
    return (rand(rng, *shape) < 0.4).double()


def linears() -> list[nn.Linear]:
    torch.manual_seed(0)
    return [nn.Linear(C, C).requires_grad_(False) for _ in range(L)]


def masked_generation(skip_empty: bool) -> MaskedGeneration:
    torch.manual_seed(0)
    generator = MaskedGenerator(channels=C, mask_ratio=0.0)
    return MaskedGeneration(generator=generator, distance=AreaL2(), skip_empty=skip_empty)


CASES = [
    Case(
        "channel-wise divergence",
        lambda: ChannelWiseDivergence(),
        lambda B, rng: [randn(rng, B, 2, C, 3, 4), randn(rng, B, 2, C, 3, 4)],
        students=1,
        batch_dims=(0, 0),
        gate=None,
    ),
    Case(
        "heatmap L2",
        lambda: HeatmapL2(),
        lambda B, rng: [
            randn(rng, B, C, 3, 4),
            randn(rng, B, C, 3, 4),
            rand(rng, B, 3, 4) * area(rng, B, 3, 4),
        ],
        students=1,
        batch_dims=(0, 0, 0),
        gate=2,
    ),
    Case(
        "area L2",
        lambda: AreaL2(),
        lambda B, rng: [randn(rng, B, 2, C, 3, 4), randn(rng, B, 2, C, 3, 4), area(rng, B, 2, 3, 4)],
        students=1,
        batch_dims=(0, 0, 0),
        gate=2,
    ),
    *(
        Case(
            f"masked generation{', empty images skipped' if skip_empty else ''}",
            lambda skip_empty=skip_empty: masked_generation(skip_empty),
            lambda B, rng: [randn(rng, B, 2, C, 3, 4), randn(rng, B, 2, C, 3, 4), area(rng, B, 2, 3, 4)],
            students=1,
            batch_dims=(0, 0, 0),
            gate=2,
        )
        for skip_empty in (False, True)
    ),
    Case(
        "focal sampling",
        lambda: FocalSampling(value_projections=linears()),
        lambda B, rng: [
            randn(rng, B, C, 6, 7),
            rand(rng, B, L, Q, M, 1, P, 2) * 1.2 - 0.1,  # some points lie outside the map
            rand(rng, B, L, Q, M, 1, P),
            randn(rng, B, L, Q, C),
            rand(rng, B, Q) * area(rng, B, Q),
        ],
        students=1,
        batch_dims=(0, 0, 0, 0, 0),
        gate=4,
    ),
    Case(
        "focal sampling of images",
        lambda: OnTwoLevels(ImageFocalSampling()),
        lambda B, rng: [
            randn(rng, B, 2, C, 6, 7),
            randn(rng, B, 2, C, 3, 4),
            rand(rng, B, L, Q, 2, 2) * 1.2 - 0.1,  # some points lie outside the image
            (rand(rng, B, L, Q, 2) > 0.3).float(),
            rand(rng, B, L, Q, 2, 2),
            randn(rng, B, L, Q, C),
            rand(rng, B, Q) * area(rng, B, Q),
        ],
        students=2,
        batch_dims=(0, 0, 0, 0, 0, 0, 0),
        gate=6,
    ),
    Case(
        "query alignment",
        lambda: QueryAlignment(),
        lambda B, rng: [
            randn(rng, B, L, Q, K),
            randn(rng, B, L, Q, 10),
            randn(rng, B, L, Q, K),
            randn(rng, B, L, Q, 10),
            rand(rng, B, Q) * area(rng, B, Q),
        ],
        students=2,
        batch_dims=(0, 0, 0, 0, 0),
        gate=4,
    ),
]
GATED = [case for case in CASES if case.gate is not None]
every_term = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_gated_term = pytest.mark.parametrize("case", GATED, ids=lambda case: case.id)


def make(case: Case, samples: int, seed: int = 0) -> list[Tensor]:
    return case.inputs(samples, torch.Generator().manual_seed(seed))


def scalar(case: Case, term: nn.Module, tensors: list[Tensor]) -> Tensor:
    """The loss as one number: masked generation also returns its maps, the query term two losses."""
    result = term(*tensors)
    if isinstance(term, MaskedGeneration):
        return result[0]
    return sum(result) if isinstance(result, tuple) else result


def backward(case: Case, term: nn.Module, tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    students = [t.requires_grad_() for t in tensors[: case.students]]
    loss = scalar(case, term, tensors)
    loss.backward()
    return loss.detach(), [student.grad for student in students]


@every_term
def test_batch_is_the_mean_of_its_samples(case):
    term, tensors = case.term().double(), make(case, 3)
    # The second sample looks nowhere: it must count as a sample, and as zero.
    if case.gate is not None:
        tensors[case.gate].select(case.batch_dims[case.gate], 1).zero_()
    singles = [
        scalar(case, term, [t.narrow(dim, b, 1) for t, dim in zip(tensors, case.batch_dims, strict=True)])
        for b in range(3)
    ]
    if case.gate is not None:
        assert singles[1] == 0
    torch.testing.assert_close(scalar(case, term, tensors), torch.stack(singles).mean())


@every_gated_term
def test_nothing_to_look_at_is_zero(case):
    term, tensors = case.term().double(), make(case, 2)
    tensors[case.gate].zero_()
    loss, grads = backward(case, term, tensors)
    assert loss == 0
    assert all((grad == 0).all() for grad in grads)
    assert all((p.grad == 0).all() for p in term.parameters() if p.requires_grad)


@every_gated_term
def test_overflowing_maps_outside_do_not_matter(case):
    """A zero that was made by multiplying with zero would be NaN here."""
    term, tensors = case.term(), [t.float() for t in make(case, 1)]
    tensors[case.gate].zero_()
    tensors[0] = torch.full_like(tensors[0], 3e38)
    loss, grads = backward(case, term, tensors)
    assert loss == 0
    assert all((grad == 0).all() for grad in grads)


@every_term
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision(case, dtype):
    """Values near float16's largest: their squares and sums overflow unless the term widens them."""
    tensors = make(case, 2)
    scale = torch.tensor(300.0)
    for i, (t, dim) in enumerate(zip(tensors, case.batch_dims, strict=True)):
        is_map = t.dim() == tensors[0].dim() and t.shape == tensors[0].shape and dim == case.batch_dims[0]
        tensors[i] = (t * scale if is_map else t).to(dtype)
    exact, exact_grads = backward(case, case.term(), [t.detach().float() for t in tensors])
    with torch.autocast("cpu", dtype=dtype):
        loss, grads = backward(case, case.term(), [t.detach() for t in tensors])
    assert loss.dtype == torch.float32
    assert all(grad.isfinite().all() for grad in grads)
    # The convolutions of a generator run in half precision on purpose, the loss on top of them does not.
    tolerance = 0.05 if "generation" in case.id else 1e-5
    torch.testing.assert_close(loss, exact, rtol=tolerance, atol=0)
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        cosine = torch.cosine_similarity(grad.float().flatten(), exact_grad.flatten(), dim=0)
        assert cosine > 0.999


@every_term
def test_gradient(case):
    term, tensors = case.term().double(), make(case, 2)
    rest = tensors[case.students :]
    students = [t.requires_grad_() for t in tensors[: case.students]]
    assert torch.autograd.gradcheck(lambda *s: scalar(case, term, [*s, *rest]), students)


@every_term
def test_wrong_shapes_are_refused(case):
    """Each input in turn loses a sample; the message names the term and what came instead."""
    for i, dim in enumerate(case.batch_dims):
        tensors = make(case, 2)
        tensors[i] = tensors[i].narrow(dim, 0, 1)
        with pytest.raises(ShapeMismatch, match=r"\w+: .*expected \(.*got \("):
            case.term().double()(*tensors)


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.id in ("channel-wise divergence", "heatmap L2", "area L2", "query alignment")],
    ids=lambda case: case.id,
)
def test_same_maps_leave_nothing_to_learn(case):
    tensors = make(case, 2)
    tensors[case.students : 2 * case.students] = [t.clone() for t in tensors[: case.students]]
    loss, grads = backward(case, case.term().double(), tensors)
    for grad in grads:
        torch.testing.assert_close(grad, torch.zeros_like(grad))
    if case.gate is not None:  # the divergence of equal maps is the teacher's entropy
        assert loss.abs() < 1e-12


def test_restore_layer():
    layer = BevRestore(student_channels=3, teacher_channels=5)
    lifted = layer(torch.randn(2, 3, 10, 8))
    assert lifted.shape == (2, 5, 20, 16)
    assert lifted.isfinite().all()


def test_restore_layer_keeps_the_place():
    """With its inner layers neutral, cell (r, c) of the student lands on the four cells it covers."""
    layer = BevRestore(student_channels=1, teacher_channels=1).eval()
    nn.init.ones_(layer.layers[0].weight)
    nn.init.dirac_(layer.layers[3].weight)
    nn.init.zeros_(layer.layers[3].bias)
    bev = torch.zeros(1, 1, 6, 6)
    bev[0, 0, 2, 4] = 1
    rows, columns = layer(bev)[0, 0].nonzero(as_tuple=True)
    assert rows.double().mean() == 2 * 2 + 0.5
    assert columns.double().mean() == 2 * 4 + 0.5


def test_terms_stand_on_torch_alone():
    """import-linter forbids a list of packages; this allows a list, so a new package is caught as well."""
    allowed = {"torch", "__future__", "collections", "itertools", "math", "typing", "train.losses"}
    for path in Path(train.losses.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module]
            for name in names:
                assert any(name == a or name.startswith(f"{a}.") for a in allowed), f"{path.name}: {name}"
