"""What detectors with object queries share before their head: images, and the maps of backbone and neck.

Shapes: B batch, N cameras, C channels, H W image size, h w map size.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmdet3d.registry import MODELS
from torch import Tensor

from camera3d.detectors.protocol import IMAGE_MAP, OutputSpec
from camera3d.detectors.query_based.criterion import SetCriterion
from camera3d.detectors.query_based.decode import MAX_DETECTIONS
from camera3d.detectors.query_based.predictions import QueryPredictions, widened
from camera3d.layers.camera_maps import camera_maps
from camera3d.layers.grid_mask import GridMask


class QueryDetector(QueryPredictions):
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

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """FPN maps, one (B, N, C, h, w) a level, of images (B, N, 3, H, W)."""
        return camera_maps(images, grid_mask=self.grid_mask, backbone=self.img_backbone, neck=self.img_neck)


def named_maps(pv_feats: Sequence[Tensor]) -> dict[str, Tensor]:
    """The neck's maps by the names of `QueryDetector.image_map_specs`."""
    return {f"pv_feats_{level}": feats for level, feats in enumerate(pv_feats)}
