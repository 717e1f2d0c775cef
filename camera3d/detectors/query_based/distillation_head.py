"""A query decoder on a bird's-eye-view map that is there already, of whatever detector.

FD3D asks where object queries read a teacher's map. For a teacher without queries, or in place of its own
frozen ones, this head is trained on the maps alone.

Shapes: B batch, C channels, H W cells of the map, Q object queries.
Source: the distillation head of Zeng et al., Distilling Focal Knowledge from Imperfect Expert for 3D Object
Detection, CVPR 2023; its decoder is that of Zhu et al., Deformable DETR, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from camera3d.boxes import move_boxes
from camera3d.detectors.protocol import BEV_MAP, Detections, GroundTruth, Outputs, OutputSpec
from camera3d.detectors.query_based.bev_decoder import (
    ObjectDecoder,
    build_object_decoder,
    decode_objects,
    query_outputs,
    value_projections,
)
from camera3d.detectors.query_based.branches import CODE_WEIGHTS, prediction_branches
from camera3d.detectors.query_based.criterion import SetCriterion
from camera3d.detectors.query_based.decode import MAX_DETECTIONS
from camera3d.detectors.query_based.predictions import QueryPredictions, widened

LIDAR2EGO = "lidar2ego"


class ObjectTransformer(nn.Module):
    """A decoder, and where its queries look first."""

    def __init__(self, *, decoder: ObjectDecoder, embed_dims: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.reference_points = nn.Linear(embed_dims, 3)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if hasattr(module, "sampling_offsets"):
                module.init_weights()
        nn.init.zeros_(self.reference_points.bias)


class BevQueryHead(nn.Module):
    """Learned queries, their decoder, and one class and one box branch a decoder layer.

    Its parameters have the names that other detectors' heads give to the same parts, so that a student's
    queries can start from them.

    Args:
        point_cloud_range: what the map covers: x, y, z minimum, then maximum, in metres.
    """

    def __init__(
        self,
        *,
        transformer: ObjectTransformer,
        num_queries: int,
        num_classes: int,
        embed_dims: int,
        point_cloud_range: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.embed_dims, self.point_cloud_range = embed_dims, point_cloud_range
        self.code_weights = nn.Parameter(torch.tensor(CODE_WEIGHTS), requires_grad=False)
        self.transformer = transformer
        self.cls_branches, self.reg_branches = prediction_branches(
            len(transformer.decoder.layers),
            embed_dims=embed_dims,
            num_classes=num_classes,
            code_size=len(CODE_WEIGHTS),
        )
        self.query_embedding = nn.Embedding(num_queries, 2 * embed_dims)

    def forward(self, bev_BCHW: Tensor) -> dict[str, Tensor]:
        """What the queries say, in the frame of the map; see `query_outputs`."""
        trace = decode_objects(
            self.transformer.decoder,
            self.transformer.reference_points,
            bev_BCHW,
            self.query_embedding.weight,
            self.reg_branches,
        )
        return query_outputs(trace, self.cls_branches, self.point_cloud_range)


@MODELS.register_module()
class DistillationHead(QueryPredictions):
    """A detector that reads a stored BEV map in place of images.

    Positions and boxes of its queries are in the map's frame; its detections, and the ground truth that it
    learns from, are in the LiDAR frame like everybody's.

    Args:
        class_names: order of the logits; those of the store.
        bev_map: keywords of the map's OutputSpec but for its role: those of the store.
        num_queries: object queries.
        decoder_layers: layers that make the boxes.
        num_heads: heads of every attention, of which the map's channels are a multiple.
        ffn_dims: width of the feed-forward layers.
        decoder_points: points that a query reads from the BEV map.
        dropout: in training.
        max_detections: how many of queries × classes `decode` looks at.
        post_center_range: x, y, z minimum, then maximum, in metres of the map's frame, where the centre of a
            reported box lies; None takes ten metres more in x and y, and z at least from -10 to 10.
        criterion: keywords of SetCriterion.
    """

    numerics_version = 1

    def __init__(
        self,
        *,
        class_names: Sequence[str],
        bev_map: Mapping[str, object],
        num_queries: int = 900,
        decoder_layers: int = 6,
        num_heads: int = 8,
        ffn_dims: int = 512,
        decoder_points: int = 4,
        dropout: float = 0.1,
        max_detections: int = MAX_DETECTIONS,
        post_center_range: Sequence[float] | None = None,
        criterion: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.class_names = tuple(class_names)
        self.map = OutputSpec(
            role=BEV_MAP, **{k: tuple(v) if isinstance(v, list) else v for k, v in bev_map.items()}
        )
        self.query_frame = self.map.frame
        self.inputs = (self.map.name, LIDAR2EGO) if self.query_frame == "ego" else (self.map.name,)
        self.max_detections = max_detections
        self.post_center_range = tuple(post_center_range or widened(self.map.extent_m))
        self.criterion = SetCriterion(num_classes=len(self.class_names), **(criterion or {}))
        channels = self.map.shape[0]
        decoder = build_object_decoder(
            layers=decoder_layers,
            embed_dims=channels,
            num_heads=num_heads,
            ffn_dims=ffn_dims,
            points=decoder_points,
            dropout=dropout,
        )
        self.pts_bbox_head = BevQueryHead(
            transformer=ObjectTransformer(decoder=decoder, embed_dims=channels),
            num_queries=num_queries,
            num_classes=len(self.class_names),
            embed_dims=channels,
            point_cloud_range=self.map.extent_m,
        )

    def output_specs(self, image_hw: tuple[int, int] = (1, 1)) -> tuple[OutputSpec, ...]:
        """See Detector; nothing depends on images."""
        return (*self.prediction_specs(), *self.sampling_specs())

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """See Detector: of a frame it reads the map (B, C, H, W), and in the ego frame `lidar2ego`."""
        outputs = self.pts_bbox_head(frame[self.map.name].float())
        return {**outputs, **{name: frame[name] for name in self.inputs[1:]}}, None

    def decode(self, outputs: Outputs) -> list[Detections]:
        """See Detector: boxes in the LiDAR frame."""
        found = super().decode(outputs)
        if self.query_frame != "ego":
            return found
        return [
            Detections(
                boxes=move_boxes(one.boxes, torch.linalg.inv_ex(lidar2ego.double()).inverse),
                scores=one.scores,
                labels=one.labels,
            )
            for one, lidar2ego in zip(found, outputs[LIDAR2EGO], strict=True)
        ]

    def detection_loss(self, outputs: Outputs, ground_truth: Sequence[GroundTruth]) -> dict[str, Tensor]:
        """See Detector. Boxes whose centre is not on the map are left out: no query can say where it is."""
        moves = outputs[LIDAR2EGO] if self.query_frame == "ego" else [None] * len(ground_truth)
        moved = [self._on_map(truth, move) for truth, move in zip(ground_truth, moves, strict=True)]
        return super().detection_loss(outputs, moved)

    def sampling_projections(self, weights: Mapping[str, Tensor]) -> list[nn.Linear]:
        """See Detector and `value_projections`."""
        return value_projections(weights)

    def _on_map(self, truth: GroundTruth, lidar2map: Tensor | None) -> GroundTruth:
        boxes = truth.boxes if lidar2map is None else move_boxes(truth.boxes, lidar2map)
        low, high = boxes.new_tensor(self.map.extent_m).view(2, 3)[:, :2]
        kept = ((boxes[:, :2] > low) & (boxes[:, :2] < high)).all(-1)
        return GroundTruth(boxes[kept], truth.labels[kept])
