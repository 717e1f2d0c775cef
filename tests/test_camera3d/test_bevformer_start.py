"""A student's head that starts from a teacher's: the same places in metres, and only what is promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from bevformer_cases import shrunk_detector
from golden.formula import state_dict
from torch import Tensor

from camera3d.detectors.bevformer.builder import build_bevformer_head
from camera3d.detectors.bevformer.head import BEVFormerHead
from camera3d.detectors.bevformer.start import HeadScale, start_weights
from camera3d.detectors.protocol import TeacherHead
from camera3d.errors import StartUnfit

RANGE = (-51.2, -40.0, -5.0, 51.2, 40.0, 3.0)
SIZE_M = torch.tensor([102.4, 80.0])
HEADS, LEVELS = 4, 2
TEACHER = HeadScale(bev_hw=(20, 16), point_cloud_range=RANGE, pv_cell_pixels=(8.0, 16.0))


def head(bev_hw: tuple[int, int], **changes: object) -> BEVFormerHead:
    made = build_bevformer_head(
        **{
            "point_cloud_range": RANGE,
            "num_classes": 3,
            "num_cameras": 2,
            "bev_hw": bev_hw,
            "num_queries": 7,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "embed_dims": 16,
            "num_heads": HEADS,
            "num_levels": LEVELS,
            "ffn_dims": 8,
            "dropout": 0.0,
            **changes,
        }
    )
    made.load_state_dict(state_dict(made))
    return made.eval()


def keyed(made: BEVFormerHead) -> dict[str, Tensor]:
    return {f"pts_bbox_head.{key}": value for key, value in made.state_dict().items()}


def started(kind: str, student: BEVFormerHead, teacher: BEVFormerHead, scale: HeadScale) -> BEVFormerHead:
    weights = start_weights(
        kind, keyed(teacher), keyed(student), teacher_scale=TEACHER, student_scale=scale, num_heads=HEADS
    )
    student.load_state_dict({k.removeprefix("pts_bbox_head."): v for k, v in weights.items()}, strict=False)
    return student


def scale(bev_hw: tuple[int, int], pv_cell_pixels: tuple[float, ...] = (8.0, 16.0)) -> HeadScale:
    return HeadScale(bev_hw=bev_hw, point_cloud_range=RANGE, pv_cell_pixels=pv_cell_pixels)


@pytest.mark.parametrize("bev_hw", [(10, 8), (10, 16), (20, 16), (40, 4)])
def test_the_decoder_samples_at_the_teachers_distances_in_metres(bev_hw):
    torch.manual_seed(0)
    teacher = head(TEACHER.bev_hw)
    student = started("head", head(bev_hw), teacher, scale(bev_hw))
    query, position, reference = torch.randn(1, 7, 16), torch.randn(1, 7, 16), torch.rand(1, 7, 2)
    reach_m = []
    for made, (height, width) in ((teacher, TEACHER.bev_hw), (student, bev_hw)):
        attention = made.transformer.decoder.layers[1].attentions[1]
        bev = torch.randn(1, height * width, 16)
        with torch.no_grad():
            locations = attention(query, position, bev, reference, (height, width))[1]
        reach_m.append((locations - reference[:, :, None, None, None]) * SIZE_M)
    assert reach_m[0].square().mean().sqrt() > 1  # offsets of several cells
    torch.testing.assert_close(reach_m[1], reach_m[0], atol=1e-4, rtol=0)


def test_the_encoder_reaches_as_far_in_metres_and_in_camera_pixels():
    torch.manual_seed(0)
    teacher, cells = head(TEACHER.bev_hw), (4.0, 32.0)
    student = started("head_and_encoder", head((10, 8)), teacher, scale((10, 8), cells))
    query = torch.randn(5, 32)
    temporal, spatial = (
        [made.transformer.encoder.layers[0].attentions[i] for made in (teacher, student)] for i in (0, 1)
    )
    with torch.no_grad():
        own, theirs = (t.sampling_offsets(query).view(5, -1, 2) for t in reversed(temporal))
        cell_m = [SIZE_M / torch.tensor(hw[::-1]) for hw in ((10, 8), TEACHER.bev_hw)]
        torch.testing.assert_close(own * cell_m[0], theirs * cell_m[1], atol=1e-4, rtol=0)
        own, theirs = (
            s.deformable_attention.sampling_offsets(query[:, :16]).view(5, HEADS, LEVELS, -1)
            for s in reversed(spatial)
        )
        pixels = [torch.tensor(c)[:, None] for c in (cells, TEACHER.pv_cell_pixels)]
        torch.testing.assert_close(own * pixels[0], theirs * pixels[1], atol=1e-4, rtol=0)


def test_equal_maps_start_with_equal_weights():
    teacher = head(TEACHER.bev_hw)
    blank = build_bevformer_head(
        point_cloud_range=RANGE,
        num_classes=3,
        num_cameras=2,
        bev_hw=TEACHER.bev_hw,
        num_queries=7,
        encoder_layers=1,
        decoder_layers=2,
        embed_dims=16,
        num_heads=HEADS,
        num_levels=LEVELS,
        ffn_dims=8,
    )
    got = started("head_and_encoder", blank, teacher, TEACHER).state_dict()
    for name, value in teacher.state_dict().items():
        torch.testing.assert_close(got[name], value, msg=name)


def test_released_leaves_the_transformer_and_the_last_class_biases():
    weights = start_weights(
        "released",
        keyed(head(TEACHER.bev_hw)),
        keyed(head((10, 8))),
        teacher_scale=TEACHER,
        student_scale=scale((10, 8)),
        num_heads=HEADS,
    )
    names = {key.removeprefix("pts_bbox_head.") for key in weights}
    assert {name.split(".")[0] for name in names} == {"query_embedding", "cls_branches", "reg_branches"}
    assert "cls_branches.1.6.weight" in names
    assert not {"cls_branches.0.6.bias", "cls_branches.1.6.bias"} & names


def test_what_fits_of_another_encoder_is_taken():
    """A student with one image level: its spatial attention has other shapes, the rest is the teacher's."""
    teacher, student = head(TEACHER.bev_hw), head((10, 8), num_levels=1)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    got = started("head_and_encoder", student, teacher, scale((10, 8), (8.0,))).state_dict()
    spatial = "transformer.encoder.layers.0.attentions.1.deformable_attention.sampling_offsets.weight"
    assert torch.equal(got[spatial], before[spatial])
    assert torch.equal(got["transformer.cams_embeds"], teacher.transformer.cams_embeds)


def test_embeddings_of_the_bev_cells_are_resized_in_place():
    """A ramp along y stays a ramp along y."""
    teacher = head(TEACHER.bev_hw)
    ramp = torch.arange(20.0).repeat_interleave(16)
    teacher.bev_embedding.weight.data = ramp[:, None].expand(-1, 16).clone()
    got = started("head_and_encoder", head((10, 8)), teacher, scale((10, 8)))
    grid = got.bev_embedding.weight.view(10, 8, 16)
    torch.testing.assert_close(grid[:, 0, 0], torch.arange(10.0) * 2 + 0.5)
    torch.testing.assert_close(grid, grid[:, :1, :1].expand_as(grid))


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("head", {"num_queries": 9}, "query_embedding.weight: (9, 32) in the student, (7, 32)"),
        ("released", {"num_classes": 5}, "cls_branches.0.6.weight"),
        ("head", {"decoder_layers": 1}, "None in the student"),
    ],
)
def test_what_must_fit_and_does_not(kind, changes, says):
    with pytest.raises(StartUnfit) as caught:
        started(kind, head((10, 8), **changes), head(TEACHER.bev_hw), scale((10, 8)))
    assert says in str(caught.value)


def test_missing_weights_are_refused():
    teacher, student = keyed(head(TEACHER.bev_hw)), keyed(head((10, 8)))
    shared = {"teacher_scale": TEACHER, "student_scale": scale((10, 8)), "num_heads": HEADS}
    del teacher["pts_bbox_head.bev_embedding.weight"]
    with pytest.raises(StartUnfit, match=r"bev_embedding\.weight: not among the stored weights; dump again"):
        start_weights("head_and_encoder", teacher, student, **shared)
    assert start_weights("head", teacher, student, **shared)


class TestDetector:
    """What a detector makes of a teacher's outputs: the scales, and whether they speak of the same metres."""

    @staticmethod
    def teacher(**bev: object) -> TeacherHead:
        """The shrunk detector's own head, said to have a BEV map with these changes."""
        specs = shrunk_detector().output_specs((96, 160))
        changed = tuple(replace(spec, **bev) if spec.name == "bev_feats" else spec for spec in specs)
        return TeacherHead(weights=shrunk_detector().head_weights(), specs=changed, image_scale=1.0)

    def test_cells_of_the_bev_map(self):
        """A teacher with three times the cells along y and twice along x: offsets of fewer cells here."""
        teacher = self.teacher(shape=(256, 36, 24))
        got = shrunk_detector().start_from("head", teacher, image_scale=1.0)
        key = "pts_bbox_head.transformer.decoder.layers.1.attentions.1.sampling_offsets.bias"
        ours, theirs = got[key].view(-1, 2), teacher.weights[key].view(-1, 2)
        torch.testing.assert_close(ours, theirs * torch.tensor([1 / 2, 1 / 3]))

    def test_scale_of_the_images(self):
        """A student that sees its cameras at half the size: a cell covers twice the camera pixels."""
        teacher = self.teacher()
        got = shrunk_detector().start_from("head_and_encoder", teacher, image_scale=0.5)
        layer = "pts_bbox_head.transformer.encoder.layers.0.attentions"
        for key, ratio in (
            (f"{layer}.1.deformable_attention.sampling_offsets.bias", 0.5),
            (f"{layer}.0.sampling_offsets.bias", 1.0),
        ):
            torch.testing.assert_close(got[key], teacher.weights[key] * ratio)

    def test_other_metres_are_refused(self):
        teacher = self.teacher()
        specs = [
            replace(spec, extent_m=(-1.0, *spec.extent_m[1:])) if spec.extent_m else spec
            for spec in teacher.specs
        ]
        other = replace(teacher, specs=tuple(specs))
        for kind in ("released", "head", "head_and_encoder"):
            with pytest.raises(StartUnfit, match="point_cloud_range"):
                shrunk_detector().start_from(kind, other, image_scale=1.0)
        assert shrunk_detector().start_from("none", other, image_scale=1.0) == {}
