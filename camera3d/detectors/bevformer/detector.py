"""BEVFormer as a detector: images in, boxes out, and the training path over a queue of frames.

Shapes: B batch, T frames of the queue, N cameras, C channels, H W image or map size.
Source: Li et al., BEVFormer, ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from camera3d.detectors.base import eval_mode
from camera3d.detectors.bevformer.builder import build_bevformer_head
from camera3d.detectors.bevformer.start import HeadScale, start_weights
from camera3d.detectors.protocol import BEV_MAP, IMAGE_MAP, Outputs, OutputSpec, TeacherHead, with_role
from camera3d.detectors.query_based.bev_decoder import value_projections
from camera3d.detectors.query_based.detector import QueryDetector
from camera3d.detectors.query_based.start import require_same_range
from camera3d.errors import StartUnfit


@MODELS.register_module()
class BEVFormer(QueryDetector):
    """Camera-only detector with a bird's-eye-view map that is handed from frame to frame.

    Args:
        pts_bbox_head: keywords of `build_bevformer_head`, without those given here.
        kwargs: see `QueryDetector`.
    """

    inputs = ("images", "lidar2img", "can_bus")
    numerics_version = 1
    has_state = True
    config_parts: ClassVar = {**QueryDetector.config_parts, "pts_bbox_head": build_bevformer_head}

    def __init__(
        self,
        *,
        pts_bbox_head: dict,
        point_cloud_range: Sequence[float],
        class_names: Sequence[str],
        pv_strides: Sequence[int],
        num_cameras: int = 6,
        **kwargs: object,
    ) -> None:
        super().__init__(
            point_cloud_range=point_cloud_range,
            class_names=class_names,
            pv_strides=pv_strides,
            num_cameras=num_cameras,
            **kwargs,
        )
        self.pts_bbox_head = build_bevformer_head(
            point_cloud_range=tuple(point_cloud_range),
            num_classes=len(self.class_names),
            num_cameras=num_cameras,
            num_levels=len(self.pv_strides),
            **pts_bbox_head,
        )

    def output_specs(self, image_hw: tuple[int, int]) -> tuple[OutputSpec, ...]:
        """See Detector."""
        head = self.pts_bbox_head
        return (
            *self.image_map_specs(image_hw),
            OutputSpec(
                name="bev_feats",
                role=BEV_MAP,
                shape=(head.embed_dims, *head.bev_hw),
                dimension_names=("channel", "bev_y", "bev_x"),
                extent_m=tuple(float(edge) for edge in head.point_cloud_range),
                frame="lidar",
            ),
            *self.prediction_specs(),
            *self.sampling_specs(),
        )

    def encode(self, frame: Mapping[str, Tensor], state: object = None) -> tuple[Outputs, object]:
        """See Detector. The state is the BEV map."""
        images = frame["images"]
        pv_feats = self.extract_feat(images)
        bev_feats = self._bev(pv_feats, frame, state)
        return self.pts_bbox_head.objects(pv_feats, bev_feats), bev_feats.detach()

    def training_outputs(self, batch: Mapping[str, Tensor]) -> Outputs:
        """See Detector. `can_bus` is relative to the frame before in the queue."""
        last = {name: values[:, -1] for name, values in batch.items()}
        return self.encode(last, self.history_bev(batch))[0]

    def history_bev(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The BEV map of the queue's frames before the last, without gradient, dropout or grid mask."""
        B, T = batch["images"].shape[:2]
        if T == 1:
            return None
        prev_bev = None
        with torch.no_grad(), eval_mode(self):
            # The backbone sees all frames at once: a GPU is busy longer with each of its kernels.
            queue = self.extract_feat(batch["images"][:, :-1].flatten(0, 1))
            for t in range(T - 1):
                frame = {name: values[:, t] for name, values in batch.items()}
                pv_feats = [feats.unflatten(0, (B, T - 1))[:, t] for feats in queue]
                prev_bev = self._bev(pv_feats, frame, prev_bev)
        return prev_bev

    def _bev(self, pv_feats: list[Tensor], frame: Mapping[str, Tensor], prev_bev: Tensor | None) -> Tensor:
        return self.pts_bbox_head.bev(
            pv_feats,
            lidar2img=frame["lidar2img"],
            can_bus=frame["can_bus"],
            image_hw=tuple(frame["images"].shape[-2:]),
            prev_bev=prev_bev,
            has_prev=frame.get("has_prev"),
        )

    def start_from(self, kind: str, teacher: TeacherHead, *, image_scale: float) -> dict[str, Tensor]:
        """See Detector and `start_weights`."""
        if kind == "none":
            return {}
        # Map sizes do not depend on the images, strides and extents even less.
        own = self.output_specs((1, 1))
        require_same_range(own, teacher.specs)
        if not with_role(teacher.specs, BEV_MAP):
            raise StartUnfit(["the teacher has no BEV map that its decoder was trained on"])
        attention = self.pts_bbox_head.transformer.decoder.layers[0].attentions[1]
        return start_weights(
            kind,
            teacher.weights,
            self.head_weights(),
            teacher_scale=head_scale(teacher.specs, teacher.image_scale),
            student_scale=head_scale(own, image_scale),
            num_heads=attention.num_heads,
        )

    def sampling_projections(self, weights: Mapping[str, Tensor]) -> list[nn.Linear]:
        """See Detector and `value_projections`."""
        return value_projections(weights)


def head_scale(specs: Sequence[OutputSpec], image_scale: float) -> HeadScale:
    """What the cells of a detector's maps cover, as its outputs describe them."""
    (bev,) = with_role(specs, BEV_MAP)
    return HeadScale(
        bev_hw=bev.shape[-2:],
        point_cloud_range=tuple(bev.extent_m),
        pv_cell_pixels=tuple(spec.stride / image_scale for spec in with_role(specs, IMAGE_MAP)),
    )
