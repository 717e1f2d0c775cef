"""Masked generation: hide a part of the student's instance areas and restore the teacher's map from the rest.

Shapes: B batch, N images of a sample (cameras, or 1 for BEV), C channels, H W map height and width.
Source: Zeng et al., Distilling Focal Knowledge from Imperfect Expert for 3D Object Detection, CVPR 2023,
abstract and overview figure; the generator is that of Yang et al., Masked Generative Distillation, ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.losses.checks import ShapeMismatch, check_shapes, compute_dtype, zero_with_graph
from train.losses.regions import Regions, Stacked, Window

REACH = 2
"""Cells on each side that a generated one comes from, where maps are not enlarged: two 3×3 convolutions."""


class MaskedGenerator(nn.Module):
    """Hide a part of the instance areas of a student's map and make the teacher's map from the rest.

    What is hidden is hidden before the first layer, on the student's own cells: a map that is enlarged first
    has spread each cell over its neighbours. At equal sizes the layers are MGD's 3×3 convolution, ReLU, 3×3
    convolution; to enlarge, a 4×4 deconvolution of stride 2 and a ReLU for every doubling take the first
    convolution's place.

    Args:
        channels: of the student's map.
        mask_ratio: how likely a cell of an area is hidden, in [0, 1]; a hidden cell loses all its channels.
        teacher_channels: of the generated map; None: as many as the student's.
        doublings: how often both sides of the map are doubled.
    """

    def __init__(
        self,
        *,
        channels: int,
        mask_ratio: float = 0.5,
        teacher_channels: int | None = None,
        doublings: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= mask_ratio <= 1:
            raise ValueError(f"mask_ratio: expected a number in [0, 1], got {mask_ratio}")
        self.mask_ratio = mask_ratio
        wanted = teacher_channels or channels
        widths = [channels, *[wanted] * max(doublings, 1)]
        layers: list[nn.Module] = []
        for own, other in pairwise(widths):
            if doublings:
                layers.append(nn.ConvTranspose2d(own, other, 4, stride=2, padding=1))
            else:
                layers.append(nn.Conv2d(own, other, 3, padding=1))
            layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers, nn.Conv2d(wanted, wanted, 3, padding=1))
        self._keep_the_spread()

    @torch.no_grad()
    def _keep_the_spread(self) -> None:
        """He's initialisation: with torch's own, a tenth of the gradient comes through."""
        *hidden, last = (layer for layer in self.layers if not isinstance(layer, nn.ReLU))
        for layer in (*hidden, last):
            # A deconvolution of stride 2 meets a quarter of its 16 taps at every output cell.
            taps = 4 if isinstance(layer, nn.ConvTranspose2d) else 9
            gain = 1.0 if layer is last else 2.0
            nn.init.normal_(layer.weight, std=(gain / (taps * layer.in_channels)) ** 0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, maps_nCHW: Tensor, area_nHW: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """The generated maps, (n, teacher channels, H · 2^doublings, W · 2^doublings), whole.

        Args:
            area_nHW: positive inside the instance areas, on the student's cells.
            rng: where the mask comes from, on any device; None takes torch's own.
        """
        return self.layers(self.masked(maps_nCHW, area_nHW, rng))

    def masked(self, maps_nCHW: Tensor, area_nHW: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """The maps, zero where a cell is hidden."""
        device = maps_nCHW.device if rng is None else rng.device
        chance = torch.rand(area_nHW.shape, generator=rng, device=device).to(maps_nCHW.device)
        hidden = (area_nHW > 0) & (chance < self.mask_ratio)
        return maps_nCHW.masked_fill(hidden[:, None], 0)

    def around(self, maps_nCHW: Tensor, windows: Sequence[Window]) -> Tensor:
        """The generated maps inside the windows, at most one an image, as from whole maps; zero elsewhere.

        Only for equal sizes. `maps_nCHW` are masked already.
        """
        generated: dict[int, Tensor] = {}
        H, W = maps_nCHW.shape[-2:]
        for image, top, bottom, left, right in windows:
            # A cell comes from so many cells around it; what the cut's edge has reached is left out again.
            above, before = min(top, REACH), min(left, REACH)
            cut = maps_nCHW[image, :, top - above : bottom + REACH, left - before : right + REACH]
            made = self.layers(cut[None])[0, :, above : above + bottom - top, before : before + right - left]
            generated[image] = F.pad(made, (left, W - right, top, H - bottom))
        nothing = torch.zeros_like(next(iter(generated.values()), maps_nCHW[0]))
        return torch.stack([generated.get(image, nothing) for image in range(len(maps_nCHW))])


class AreaL2(nn.Module):
    """Squared distance of two maps over the cells of the instance areas.

    Args:
        weight: factor on the returned loss.
        reduction: `mean` over the cells of a sample, or their `sum`, as in Masked Generative Distillation.
    """

    def __init__(self, *, weight: float = 1.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: expected mean or sum, got {reduction!r}")
        self.weight, self.reduction = weight, reduction

    def forward(self, student_BNCHW: Tensor, teacher_BNCHW: Tensor, area_BNHW: Regions | Stacked) -> Tensor:
        """Scalar: Σ area · (sum over C of the squared distance) / Σ area of each sample, mean over samples.

        With `sum` it is not divided by Σ area.
        Summed over the channels as the released heatmap term is: a mean would weigh a wide map less beside
        the detection loss, whose gradient at a cell does not shrink with the width.

        Args:
            area_BNHW: bool, or a weight ≥ 0 a cell. A sample without an area counts as zero.

        Raises ShapeMismatch when shapes differ.
        """
        area_BNHW = area_BNHW if isinstance(area_BNHW, Stacked) else Stacked.of(area_BNHW)
        _check("AreaL2", student_BNCHW, teacher_BNCHW, area_BNHW.weight)
        dtype = compute_dtype(student_BNCHW)
        if not len(area_BNHW.chosen):
            return zero_with_graph([student_BNCHW])
        # Gathered, not multiplied: areas are a tenth of an image or less, and float32 copies of whole maps
        # of all levels would be the largest thing on the device.
        cells, area = area_BNHW.places(), area_BNHW.weight.to(dtype)
        share = area[cells]
        if self.reduction == "mean":
            share = share / area.sum((1, 2, 3))[area_BNHW.sample]
        student = student_BNCHW.permute(0, 1, 3, 4, 2)[cells].to(dtype)
        teacher = teacher_BNCHW.permute(0, 1, 3, 4, 2)[cells].to(dtype)
        squared = (student - teacher).square().sum(-1)
        return torch.sum(squared * share) * (self.weight / len(student_BNCHW))


class MaskedGeneration(nn.Module):
    """Generate the student's maps and compare them with the teacher's over the instance areas.

    Args:
        generator: trained with the student, not part of it.
        distance: what compares the maps.
        skip_empty: generate only the window around each image's areas; elsewhere the generated maps are zero,
            and nothing looks there. For perspective views, whose generators are most of the term's cost.
    """

    def __init__(self, *, generator: MaskedGenerator, distance: AreaL2, skip_empty: bool = False) -> None:
        super().__init__()
        self.generator, self.distance, self.skip_empty = generator, distance, skip_empty

    def forward(
        self,
        student_BNCHW: Tensor,
        teacher_BNCHW: Tensor,
        area_BNHW: Regions,
        rng: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The scalar loss, and the generated maps (B, N, C, H, W) for terms that use them.

        Raises ShapeMismatch when shapes differ.
        """
        where = Stacked.of(area_BNHW)
        _check("MaskedGeneration", student_BNCHW, teacher_BNCHW, where.weight)
        maps, area = student_BNCHW.flatten(0, 1), where.weight.flatten(0, 1)
        masked = self.generator.masked(maps, area, rng)
        if self.skip_empty:
            generated = self.generator.around(masked, where.windows)
        else:
            generated = self.generator.layers(masked)
        generated = generated.view(student_BNCHW.shape)
        loss = self.distance(generated, teacher_BNCHW, where)
        return loss + zero_with_graph([student_BNCHW, *self.generator.parameters()]), generated


def _check(term: str, student: Tensor, teacher: Tensor, area: Tensor) -> None:
    if student.dim() != 5:
        raise ShapeMismatch(f"{term}: student: expected (B, N, C, H, W), got {tuple(student.shape)}")
    B, N, _, H, W = student.shape
    check_shapes(term, teacher=(teacher, tuple(student.shape)), area=(area, (B, N, H, W)))
