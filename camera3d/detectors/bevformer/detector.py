"""BEVFormer as a detector: images in, boxes out, and the training path over a queue of frames.

Shapes: B batch, T frames of the queue, N cameras, C channels, H W image or map size.
Source: Li et al., BEVFormer, ECCV 2022.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

from camera3d.detectors.bevformer.builder import build_bevformer_head
from camera3d.detectors.bevformer.start import HEAD, HeadScale, start_weights
from camera3d.detectors.protocol import Detections, DetectorOutputs, FeatureMap
from camera3d.detectors.query_based.criterion import SetCriterion
from camera3d.detectors.query_based.decode import MAX_DETECTIONS, decode_queries
from camera3d.detectors.query_based.samples import ground_truth, with_detections
from camera3d.layers.camera_maps import camera_maps
from camera3d.layers.grid_mask import GridMask


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode for a while. `train(True)` afterwards keeps frozen norms frozen."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@MODELS.register_module()
class BEVFormer(Base3DDetector):
    """Camera-only detector with a bird's-eye-view map that is handed from frame to frame.

    Args:
        img_backbone, img_neck: configs for mmdet3d's registry; the neck's maps go to the head, finest first.
        pts_bbox_head: keywords of `build_bevformer_head`, without those given here.
        class_names: order of the logits.
        pv_strides: input pixels a cell of each map of the neck.
        max_detections: how many of queries × classes `decode` looks at.
        grid_mask_prob: how likely GridMask hides a lattice of squares in the images of a training step.
    """

    numerics_version = 1

    def __init__(
        self,
        *,
        img_backbone: dict,
        img_neck: dict,
        pts_bbox_head: dict,
        point_cloud_range: Sequence[float],
        class_names: Sequence[str],
        pv_strides: Sequence[int],
        num_cameras: int = 6,
        max_detections: int = MAX_DETECTIONS,
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
        self.grid_mask = GridMask(prob=grid_mask_prob)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.pts_bbox_head = build_bevformer_head(
            point_cloud_range=tuple(point_cloud_range),
            num_classes=len(self.class_names),
            num_cameras=num_cameras,
            num_levels=len(self.pv_strides),
            **pts_bbox_head,
        )
        self.criterion = SetCriterion(num_classes=len(self.class_names), **(criterion or {}))

    def feature_maps(self, image_hw: tuple[int, int]) -> list[FeatureMap]:
        """See `Detector.feature_maps`."""
        decoder = self.pts_bbox_head.transformer.decoder.layers
        attention = decoder[0].attentions[1]
        C = self.pts_bbox_head.bev_embedding.embedding_dim
        L, Q, K = len(decoder), self.pts_bbox_head.query_embedding.num_embeddings, len(self.class_names)
        M, P = attention.num_heads, attention.num_points
        per_query = ("layer", "query")
        maps = [
            FeatureMap(
                name=f"pv_feats_{level}",
                # Every halving rounds up, as convolutions with stride 2 and padding do.
                shape=(self.num_cameras, C, -(-image_hw[0] // stride), -(-image_hw[1] // stride)),
                dimension_names=("camera", "channel", f"pv_{level}_y", f"pv_{level}_x"),
                stride=stride,
            )
            for level, stride in enumerate(self.pv_strides)
        ]
        return [
            *maps,
            FeatureMap(
                name="bev_feats",
                shape=(C, *self.pts_bbox_head.bev_hw),
                dimension_names=("channel", "bev_y", "bev_x"),
            ),
            FeatureMap(name="query_logits", shape=(L, Q, K), dimension_names=(*per_query, "class")),
            FeatureMap(name="query_boxes", shape=(L, Q, 10), dimension_names=(*per_query, "box_code")),
            FeatureMap(name="query_feats", shape=(L, Q, C), dimension_names=(*per_query, "channel")),
            FeatureMap(name="reference_points", shape=(L, Q, 3), dimension_names=(*per_query, "xyz")),
            FeatureMap(
                name="sampling_locations",
                shape=(L, Q, M, 1, P, 2),
                dimension_names=(*per_query, "head", "bev_level", "point", "xy"),
            ),
            FeatureMap(
                name="attention_weights",
                shape=(L, Q, M, 1, P),
                dimension_names=(*per_query, "head", "bev_level", "point"),
            ),
            FeatureMap(name="focal_feats", shape=(L, Q, C), dimension_names=(*per_query, "channel")),
        ]

    def head_weights(self) -> dict[str, Tensor]:
        """All weights behind the image maps, by key: what a student's head may start from."""
        return {f"{HEAD}{key}": value for key, value in self.pts_bbox_head.state_dict().items()}

    def start_from(
        self, kind: str, teacher: Mapping[str, Tensor], teacher_scale: HeadScale, *, image_scale: float
    ) -> dict[str, Tensor]:
        """The weights of this head that start from a teacher's, see `start_weights`; nothing is loaded.

        Args:
            image_scale: factor from camera pixels to this detector's input pixels.
        """
        head = self.pts_bbox_head
        own = HeadScale(
            bev_hw=tuple(head.bev_hw),
            point_cloud_range=tuple(head.point_cloud_range),
            pv_cell_pixels=tuple(stride / image_scale for stride in self.pv_strides),
        )
        attention = head.transformer.decoder.layers[0].attentions[1]
        return start_weights(
            kind,
            teacher,
            self.head_weights(),
            teacher_scale=teacher_scale,
            student_scale=own,
            num_heads=attention.num_heads,
        )

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """FPN maps, one (B, N, C, h, w) a level, of images (B, N, 3, H, W)."""
        return camera_maps(images, grid_mask=self.grid_mask, backbone=self.img_backbone, neck=self.img_neck)

    def encode(
        self,
        images: Tensor,
        lidar2img: Tensor,
        can_bus: Tensor,
        prev_bev: Tensor | None = None,
        has_prev: Tensor | None = None,
    ) -> DetectorOutputs:
        """See `Detector.encode`. `has_prev` (B,) bool ignores `prev_bev` where false; None: all have one."""
        pv_feats = self.extract_feat(images)
        bev_feats = self.pts_bbox_head.bev(
            pv_feats,
            lidar2img=lidar2img,
            can_bus=can_bus,
            image_hw=tuple(images.shape[-2:]),
            prev_bev=prev_bev,
            has_prev=has_prev,
        )
        return self.pts_bbox_head.objects(pv_feats, bev_feats)

    def decode(self, outputs: DetectorOutputs) -> list[Detections]:
        """Boxes of the last layer, see `decode_queries`."""
        return [
            decode_queries(logits, boxes, max_detections=self.max_detections)
            for logits, boxes in zip(outputs.query_logits[-1], outputs.query_boxes[-1], strict=True)
        ]

    def history_bev(self, inputs: dict[str, Tensor]) -> Tensor | None:
        """The BEV map of the queue's frames before the last, without gradient, dropout or grid mask."""
        prev_bev = None
        with torch.no_grad(), eval_mode(self):
            for t in range(inputs["images"].shape[1] - 1):
                images = inputs["images"][:, t]
                prev_bev = self.pts_bbox_head.bev(
                    self.extract_feat(images),
                    lidar2img=inputs["lidar2img"][:, t],
                    can_bus=inputs["can_bus"][:, t],
                    image_hw=tuple(images.shape[-2:]),
                    prev_bev=prev_bev,
                    has_prev=inputs["has_prev"][:, t],
                )
        return prev_bev

    def encode_queue(self, inputs: dict[str, Tensor]) -> DetectorOutputs:
        """Outputs of the queue's last frame.

        Args:
            inputs: `images` (B, T, N, 3, H, W), `lidar2img` (B, T, N, 4, 4), `can_bus` (B, T, 18) relative to
                the frame before in the queue, `has_prev` (B, T) bool, false where a scene starts.
        """
        prev_bev = self.history_bev(inputs)
        last = {name: value[:, -1] for name, value in inputs.items()}
        return self.encode(**last, prev_bev=prev_bev)

    def loss(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: list[Det3DDataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Losses of every decoder layer for a batch of queues, see `encode_queue` and `SetCriterion`."""
        outputs = self.encode_queue(batch_inputs_dict)
        return self.criterion(outputs, ground_truth(batch_data_samples), self.pts_bbox_head.code_weights)

    def predict(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: list[Det3DDataSample], **kwargs
    ) -> list[Det3DDataSample]:
        """The data samples with their detections, see `with_detections`."""
        return with_detections(batch_data_samples, self.decode(self.encode_queue(batch_inputs_dict)))

    def _forward(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: object = None, **kwargs
    ) -> DetectorOutputs:
        """mmengine's `tensor` mode: the raw outputs."""
        return self.encode_queue(batch_inputs_dict)
