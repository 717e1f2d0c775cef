"""Samples for benchmarks/profiles.py: full-size teacher arrays, stored or made up, and a student.

Shapes: N cameras, C channels, H W map height and width, L decoder layers, Q object queries, M heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache_schema.reader import TargetReader
from camera3d.boxes import decode_official, encode_official
from camera3d.data import load_or_build_index
from camera3d.data.names import CAMERA_NAMES
from camera3d.ops import multi_scale_deformable_attention

CHANNELS, LAYERS, QUERIES, HEADS, POINTS, CLASSES = 256, 6, 900, 8, 4, 10
PV_HWS = ((116, 200), (58, 100), (29, 50), (15, 25))
STRIDES = (8, 16, 32, 64)
BEV_HW = (200, 200)
HALF_RANGE_M = 51.2
XY_RANGE_M = (-HALF_RANGE_M, -HALF_RANGE_M, HALF_RANGE_M, HALF_RANGE_M)


@dataclass(frozen=True)
class Sample:
    """One frame as profile `exact` holds it, and what the terms need besides."""

    name: str
    maps: dict[str, np.ndarray]  # bev_feats (C, H, W), pv_feats_i (N, C, H, W); float16
    queries: dict[str, Tensor]  # the arrays with a dimension for queries, (L, Q, ...)
    boxes: Tensor  # (n, 9) ground truth
    lidar2img: Tensor  # (N, 4, 4), of the padded image
    value_projections: list[nn.Linear]


def keyframe_geometry(dataroot: Path, version: str, split: str) -> tuple[str, Tensor, Tensor]:
    """Sample token, boxes in range and lidar2img of the first keyframe of a split."""
    frame = load_or_build_index(dataroot, version, split).frame(0)
    boxes = torch.tensor(frame.gt_boxes)
    inside = (boxes[:, :2].abs() < HALF_RANGE_M).all(1)
    return frame.sample_token, boxes[inside], torch.tensor(frame.lidar2img)


def generated_geometry(rng: torch.Generator, count: int = 40) -> tuple[Tensor, Tensor]:
    """Boxes spread evenly over the ground, and six level cameras that look outwards from 1.6 m above it."""
    distance = 5 + 45 * torch.rand(count, generator=rng).sqrt()
    angle = 2 * math.pi * torch.rand(count, generator=rng)
    small = torch.rand(count, 1, generator=rng) < 0.5
    size = torch.where(small, torch.tensor([0.7, 0.7, 1.7]), torch.tensor([4.6, 1.9, 1.7]))
    boxes = torch.zeros(count, 9)
    boxes[:, 0], boxes[:, 1], boxes[:, 2] = distance * angle.cos(), distance * angle.sin(), -0.9
    boxes[:, 3:6] = size * (0.9 + 0.2 * torch.rand(count, 3, generator=rng))
    boxes[:, 6] = 2 * math.pi * torch.rand(count, generator=rng)
    pinhole = torch.tensor([[800.0, -1260, 0, 0], [450, 0, -1260, 0], [1, 0, 0, 0], [0, 0, 0, 1]]).double()
    cameras = []
    for number in range(len(CAMERA_NAMES)):
        yaw = torch.tensor(2 * math.pi * number / len(CAMERA_NAMES), dtype=torch.float64)
        turn = torch.eye(4, dtype=torch.float64)
        turn[0, 0] = turn[1, 1] = yaw.cos()
        turn[0, 1], turn[1, 0] = yaw.sin(), -yaw.sin()
        cameras.append(pinhole @ turn)
    return boxes.double(), torch.stack(cameras)


def smooth_noise(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """(..., H, W), variance about 1: half of it in blobs of 8 cells, half from cell to cell."""
    fine = torch.randn(shape, generator=rng)
    height, width = shape[-2:]
    coarse = torch.randn((1, math.prod(shape[:-2]), -(-height // 8) + 1, -(-width // 8) + 1), generator=rng)
    blobs = F.interpolate(coarse, (height, width), mode="bilinear").view(shape)
    return (fine + 1.5 * blobs) / math.sqrt(2)


def feature_map(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """(..., C, H, W) with what makes int8 hard: channels of different scale and offset, and rare peaks.

    A normal value times a log-normal one has a kurtosis of 8, and its largest of 23,200 values lies some 9
    standard deviations out.
    """
    peaked = smooth_noise(shape, rng) * torch.exp(0.5 * torch.randn(shape, generator=rng))
    scale = torch.exp(0.7 * torch.randn((shape[-3], 1, 1), generator=rng))
    return scale * (peaked + 0.5 * torch.randn((shape[-3], 1, 1), generator=rng))


def student_map(teacher: Tensor, distance: float, rng: torch.Generator) -> Tensor:
    """A map that differs from the teacher's by `distance` times each channel's own standard deviation."""
    spread = teacher.std((-2, -1), keepdim=True)
    return teacher + distance * spread * smooth_noise(tuple(teacher.shape), rng)


def generated_queries(
    boxes: Tensor, bev_CHW: Tensor, projections: list[nn.Linear], rng: torch.Generator
) -> dict[str, Tensor]:
    """The query arrays of a teacher that finds each box twice, some 0.3 m off, and nothing else."""
    found = torch.zeros(QUERIES, 9)
    found[:, :2] = HALF_RANGE_M * (2 * torch.rand(QUERIES, 2, generator=rng) - 1)
    found[:, 3:6] = 1.0
    found[: 2 * len(boxes)] = boxes.float().repeat(2, 1)[:QUERIES]
    found = found.repeat(LAYERS, 1, 1)
    found[..., :3] += 0.3 * torch.randn(LAYERS, QUERIES, 3, generator=rng)
    logits = -4 - torch.rand(LAYERS, QUERIES, CLASSES, generator=rng)
    logits[:, : 2 * len(boxes), 0] = 3 * torch.rand(2 * len(boxes), generator=rng)[:QUERIES] - 1
    center = (found[..., :2] + HALF_RANGE_M) / (2 * HALF_RANGE_M)
    offsets = torch.randn(LAYERS, QUERIES, HEADS, 1, POINTS, 2, generator=rng) * (4 / BEV_HW[0])
    locations = center[:, :, None, None, None] + offsets
    weights = torch.randn(LAYERS, QUERIES, HEADS, POINTS, generator=rng).softmax(-1).unsqueeze(3)
    cells = bev_CHW.float().flatten(1).T
    read = []
    for layer, projection in enumerate(projections):
        value = projection(cells).view(1, -1, HEADS, CHANNELS // HEADS)
        read.append(
            multi_scale_deformable_attention(value, [BEV_HW], locations[layer][None], weights[layer][None])[0]
        )
    return {
        "query_logits": logits.half(),
        "query_boxes": encode_official(found),
        "sampling_locations": locations,
        "attention_weights": weights.half(),
        "focal_feats": torch.stack(read).half(),
    }


def generated_sample(name: str, boxes: Tensor, lidar2img: Tensor, rng: torch.Generator) -> Sample:
    """Made-up features over given boxes."""
    maps = {"bev_feats": feature_map((CHANNELS, *BEV_HW), rng).half()}
    for level, hw in enumerate(PV_HWS):
        maps[f"pv_feats_{level}"] = feature_map((len(lidar2img), CHANNELS, *hw), rng).half()
    torch.manual_seed(0)
    projections = [nn.Linear(CHANNELS, CHANNELS).requires_grad_(False) for _ in range(LAYERS)]
    queries = generated_queries(boxes, maps["bev_feats"], projections, rng)
    arrays = {key: values.numpy() for key, values in maps.items()}
    return Sample(name, arrays, queries, boxes, lidar2img, projections)


def stored_sample(path: Path, sample_token: str, boxes: Tensor, rng: torch.Generator) -> Sample:
    """The arrays of a sample in a store of profile `exact`. Raises CacheError when it cannot be read.

    The queries of an untrained teacher find nothing: made-up ones that find the boxes stand in for them.
    """
    reader = TargetReader(path)
    arrays = reader.read(sample_token)
    head = reader.read_teacher_head()
    projections = []
    for layer in range(len(arrays["query_logits"])):
        key = f"decoder.layers.{layer}.attentions.1.value_proj"
        (name,) = [name for name in head if name.endswith(f"{key}.weight")]
        projection = nn.Linear(CHANNELS, CHANNELS).requires_grad_(False)
        projection.weight.copy_(torch.from_numpy(head[name]))
        projection.bias.copy_(torch.from_numpy(head[name.replace(".weight", ".bias")]))
        projections.append(projection)
    maps = {key: values for key, values in arrays.items() if key == "bev_feats" or key.startswith("pv_feats")}
    name = f"Features of {reader.spec.teacher.detector} on a real keyframe"
    if reader.spec.teacher.trained:
        wanted = ("query_logits", "query_boxes", "sampling_locations", "attention_weights", "focal_feats")
        queries = {key: torch.from_numpy(arrays[key]) for key in wanted}
    else:
        name += ", untrained; made-up queries"
        queries = generated_queries(boxes, torch.from_numpy(maps["bev_feats"]), projections, rng)
    return Sample(name, maps, queries, boxes, torch.from_numpy(arrays["lidar2img"]), projections)


def confident_boxes(sample: Sample, confidence: Tensor) -> Tensor:
    """(n, 9): what the confident queries of the last layer found."""
    return decode_official(sample.queries["query_boxes"][-1][confidence > 0].double())
