"""DETR3D as a detector: images in, boxes out, each frame by itself.

Shapes: B batch, N cameras, C channels, H W image or map size.
Source: Wang et al., DETR3D, CoRL 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from mmdet3d.registry import MODELS
from torch import Tensor

from camera3d.checkpoint import Checkpoint
from camera3d.detectors.detr3d.builder import build_detr3d_head
from camera3d.detectors.detr3d.checkpoint import box_form, check_choice, exchange_box_rows
from camera3d.detectors.protocol import Outputs, OutputSpec, TeacherHead
from camera3d.detectors.query_based.detector import QueryDetector
from camera3d.detectors.query_based.predictions import EXACT
from camera3d.detectors.query_based.start import query_start, require_same_range
from camera3d.errors import ShapeMismatch, StartUnfit


@MODELS.register_module()
class DETR3D(QueryDetector):
    """Camera-only detector whose queries read the image maps where their 3D points project to.

    The weights are learnt a camera slot, so the cameras' order is part of the weights.

    Args:
        pts_bbox_head: keywords of `build_detr3d_head`, without those given here.
        checkpoint_boxes: what the box branches of a checkpoint to be loaded answer in: `official`, `mmdet3d`
            (1.x), or `auto`, see `box_form`.
        kwargs: see `QueryDetector`.

    Raises:
        ConfigInvalid: `checkpoint_boxes` is none of these.
    """

    inputs = ("images", "lidar2img")
    numerics_version = 1
    config_parts: ClassVar = {**QueryDetector.config_parts, "pts_bbox_head": build_detr3d_head}

    def __init__(
        self,
        *,
        pts_bbox_head: dict,
        point_cloud_range: Sequence[float],
        class_names: Sequence[str],
        pv_strides: Sequence[int],
        num_cameras: int = 6,
        checkpoint_boxes: str = "auto",
        **kwargs: object,
    ) -> None:
        super().__init__(
            point_cloud_range=point_cloud_range,
            class_names=class_names,
            pv_strides=pv_strides,
            num_cameras=num_cameras,
            **kwargs,
        )
        self.checkpoint_boxes = check_choice(checkpoint_boxes)
        self.pts_bbox_head = build_detr3d_head(
            point_cloud_range=tuple(point_cloud_range),
            num_classes=len(self.class_names),
            num_cameras=num_cameras,
            num_levels=len(self.pv_strides),
            **pts_bbox_head,
        )

    def own_form(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """Weights whose box branches answer in the official encoding, see `box_form`."""
        if box_form(checkpoint, self.checkpoint_boxes) == "official":
            return checkpoint.weights
        return exchange_box_rows(checkpoint.weights, self.pts_bbox_head.reg_branches)

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        """See Detector."""
        cameras, levels = self.num_cameras, len(self.pv_strides)
        return (
            *self.image_map_specs(image_hw),
            *self.prediction_specs(),
            self.query_spec("image_points", (cameras, 2), ("camera", "xy"), EXACT),
            self.query_spec("image_visible", (cameras,), ("camera",), "bool"),
            self.query_spec("image_weights", (cameras, levels), ("camera", "pv_level")),
            self.query_spec("focal_feats", (self.pts_bbox_head.embed_dims,), ("channel",)),
        )

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """See Detector; there is no state.

        Raises:
            ShapeMismatch: the images are not those of `num_cameras` cameras, or the matrices not theirs.
        """
        images, lidar2img = frame["images"], frame["lidar2img"]
        self._check(images, lidar2img)
        image_hw = tuple(images.shape[-2:])
        return self.pts_bbox_head(self.extract_feat(images), lidar2img=lidar2img, image_hw=image_hw), None

    def start_from(self, kind: str, teacher: TeacherHead, *, image_scale: float) -> dict[str, Tensor]:
        """See Detector and `query_start`. A 3D point is projected: no offset depends on a map's size."""
        if kind == "none":
            return {}
        if kind == "head_and_encoder":
            raise StartUnfit(["DETR3D has no encoder: set distiller.init_from_teacher='head'"])
        require_same_range(self.output_specs((1, 1)), teacher.specs)
        return query_start(kind, teacher.weights, self.head_weights())

    def _check(self, images: Tensor, lidar2img: Tensor) -> None:
        faults = []
        if images.dim() != 5 or images.shape[1:3] != (self.num_cameras, 3):
            faults.append(f"images: expected (B, {self.num_cameras}, 3, H, W), got {tuple(images.shape)}")
        expected = (len(images), self.num_cameras, 4, 4)
        if lidar2img.shape != expected:
            faults.append(f"lidar2img: expected {expected}, got {tuple(lidar2img.shape)}")
        if faults:
            raise ShapeMismatch("DETR3D looks through one row of cameras a sample: " + "; ".join(faults))
