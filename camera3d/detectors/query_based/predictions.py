"""What object queries predict, whatever they read: its description, decoding, loss and weights.

Shapes: L decoder layers, Q object queries, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from camera3d.detectors.base import CameraDetector
from camera3d.detectors.protocol import QUERY, Detections, GroundTruth, Outputs, OutputSpec
from camera3d.detectors.query_based.criterion import SetCriterion
from camera3d.detectors.query_based.decode import decode_queries
from camera3d.detectors.query_based.start import HEAD

# Sampling positions and metres keep float32: in half precision a centre 50 m away moves by up to 1.6 cm and a
# sampling position by a twentieth of a cell. They are under 2 % of a store's bytes.
EXACT = "float32"
PER_QUERY = ("layer", "query")


class QueryPredictions(CameraDetector):
    """The half of a detector behind its `pts_bbox_head`, which the subclass sets with what else is read here.

    Attributes:
        pts_bbox_head: with `transformer.decoder`, `query_embedding`, `embed_dims`, `code_weights` and
            `point_cloud_range`.
        criterion: the detection loss.
        max_detections: how many of queries × classes `decode` looks at.
        post_center_range: x, y, z minimum, then maximum, in metres, where the centre of a reported box lies.
        query_frame: the frame that the queries' positions and boxes are in.
    """

    config_parts: ClassVar = {"criterion": SetCriterion}
    criterion: SetCriterion
    max_detections: int
    post_center_range: tuple[float, ...]
    query_frame = "lidar"

    def query_spec(
        self,
        name: str,
        shape: tuple[int, ...],
        dimensions: tuple[str, ...],
        dtype: str = "float16",
        **about: object,
    ) -> OutputSpec:
        """An output about each query of each layer; `shape` and `dimensions` are what follows these two."""
        head = self.pts_bbox_head
        layers, queries = len(head.transformer.decoder.layers), head.query_embedding.num_embeddings
        return OutputSpec(
            name=name,
            role=QUERY,
            shape=(layers, queries, *shape),
            dimension_names=(*PER_QUERY, *dimensions),
            dtype=dtype,
            **about,
        )

    def prediction_specs(self) -> list[OutputSpec]:
        """Logits, boxes, states and reference points of every decoder layer."""
        channels = self.pts_bbox_head.embed_dims
        return [
            self.query_spec("query_logits", (len(self.class_names),), ("class",)),
            self.query_spec("query_boxes", (10,), ("box_code",), EXACT),
            self.query_spec("query_feats", (channels,), ("channel",)),
            self.query_spec(
                "reference_points",
                (3,),
                ("xyz",),
                EXACT,
                extent_m=tuple(float(edge) for edge in self.pts_bbox_head.point_cloud_range),
                frame=self.query_frame,
            ),
        ]

    def sampling_specs(self) -> list[OutputSpec]:
        """Where the queries of every decoder layer read a BEV map, and what they read."""
        attention = self.pts_bbox_head.transformer.decoder.layers[0].attentions[1]
        heads, points = attention.num_heads, attention.num_points
        per_point = ("head", "bev_level", "point")
        return [
            self.query_spec("sampling_locations", (heads, 1, points, 2), (*per_point, "xy"), EXACT),
            self.query_spec("attention_weights", (heads, 1, points), per_point),
            self.query_spec("focal_feats", (self.pts_bbox_head.embed_dims,), ("channel",)),
        ]

    def decode(self, outputs: Outputs) -> list[Detections]:
        """Boxes of the last layer, see `decode_queries`."""
        # In half precision many scores would be equal.
        logits, boxes = (outputs[name][:, -1].float() for name in ("query_logits", "query_boxes"))
        return [
            decode_queries(
                one, its_boxes, max_detections=self.max_detections, center_range=self.post_center_range
            )
            for one, its_boxes in zip(logits, boxes, strict=True)
        ]

    def detection_loss(self, outputs: Outputs, ground_truth: Sequence[GroundTruth]) -> dict[str, Tensor]:
        """Losses of every decoder layer, see `SetCriterion`."""
        return self.criterion(
            outputs["query_logits"], outputs["query_boxes"], ground_truth, self.pts_bbox_head.code_weights
        )

    def head_weights(self) -> dict[str, Tensor]:
        """All weights behind the image maps, by key."""
        return {f"{HEAD}{key}": value for key, value in self.pts_bbox_head.state_dict().items()}


def widened(point_cloud_range: Sequence[float]) -> tuple[float, ...]:
    """Where reported centres lie: the range, ten metres more in x and y, and z within ten metres."""
    x_min, y_min, z_min, x_max, y_max, z_max = point_cloud_range
    return (x_min - 10, y_min - 10, min(z_min, -10.0), x_max + 10, y_max + 10, max(z_max, 10.0))
