"""What detectors with object queries share: image maps, decoding, loss, and the weights of their head.

Shapes: B batch, N cameras, C channels, H W image size, h w map size, L decoder layers, Q object queries,
K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mmdet3d.registry import MODELS
from torch import Tensor

from camera3d.detectors.base import CameraDetector
from camera3d.detectors.protocol import IMAGE_MAP, QUERY, Detections, GroundTruth, Outputs, OutputSpec
from camera3d.detectors.query_based.criterion import SetCriterion
from camera3d.detectors.query_based.decode import MAX_DETECTIONS, decode_queries
from camera3d.detectors.query_based.start import HEAD
from camera3d.layers.camera_maps import camera_maps
from camera3d.layers.grid_mask import GridMask

# Sampling positions and metres keep float32: in half precision a centre 50 m away moves by up to 1.6 cm and a
# sampling position by a twentieth of a cell. They are under 2 % of a store's bytes.
EXACT = "float32"
PER_QUERY = ("layer", "query")


class QueryDetector(CameraDetector):
    """Backbone, neck and criterion; `pts_bbox_head` is set by the family.

    Args:
        img_backbone, img_neck: configs for mmdet3d's registry; the neck's maps go to the head, finest first.
        class_names: order of the logits.
        pv_strides: input pixels a cell of each map of the neck.
        num_cameras: of a frame, in the order that the weights were learnt in.
        max_detections: how many of queries × classes `decode` looks at.
        point_cloud_range: x, y, z minimum, then maximum, in metres: what the queries' positions are fractions
            of.
        post_center_range: likewise, where the centre of a reported box lies; None takes ten metres more in x
            and y, and z at least from -10 to 10, as released.
        grid_mask_prob: how likely GridMask hides a lattice of squares in the images of a training step.
    """

    config_parts: ClassVar = {"criterion": SetCriterion}

    def __init__(
        self,
        *,
        img_backbone: dict,
        img_neck: dict,
        point_cloud_range: Sequence[float],
        class_names: Sequence[str],
        pv_strides: Sequence[int],
        num_cameras: int = 6,
        max_detections: int = MAX_DETECTIONS,
        post_center_range: Sequence[float] | None = None,
        grid_mask_prob: float = 0.7,
        criterion: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.class_names = tuple(class_names)
        self.num_cameras = num_cameras
        self.pv_strides = tuple(pv_strides)
        self.max_detections = max_detections
        self.post_center_range = tuple(post_center_range or widened(point_cloud_range))
        self.grid_mask = GridMask(prob=grid_mask_prob)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.criterion = SetCriterion(num_classes=len(self.class_names), **(criterion or {}))

    def image_map_specs(self, image_hw: tuple[int, int]) -> list[OutputSpec]:
        """The neck's maps."""
        channels = self.pts_bbox_head.embed_dims
        return [
            OutputSpec(
                name=f"pv_feats_{level}",
                role=IMAGE_MAP,
                # Every halving rounds up, as convolutions with stride 2 and padding do.
                shape=(self.num_cameras, channels, -(-image_hw[0] // stride), -(-image_hw[1] // stride)),
                dimension_names=("camera", "channel", f"pv_{level}_y", f"pv_{level}_x"),
                stride=stride,
            )
            for level, stride in enumerate(self.pv_strides)
        ]

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
                frame="lidar",
            ),
        ]

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """FPN maps, one (B, N, C, h, w) a level, of images (B, N, 3, H, W)."""
        return camera_maps(images, grid_mask=self.grid_mask, backbone=self.img_backbone, neck=self.img_neck)

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


def named_maps(pv_feats: Sequence[Tensor]) -> dict[str, Tensor]:
    """The neck's maps by the names of `QueryDetector.image_map_specs`."""
    return {f"pv_feats_{level}": feats for level, feats in enumerate(pv_feats)}
