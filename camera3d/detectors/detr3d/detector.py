"""DETR3D as a detector: images in, boxes out, each frame by itself.

Shapes: B batch, N cameras, C channels, H W image or map size.
Source: Wang et al., DETR3D, CoRL 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmdet3d.models.detectors import Base3DDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from camera3d.checkpoint import Checkpoint
from camera3d.detectors.detr3d.builder import build_detr3d_head
from camera3d.detectors.detr3d.checkpoint import box_form, check_choice, exchange_box_rows
from camera3d.detectors.detr3d.outputs import DETR3DOutputs
from camera3d.detectors.protocol import Detections
from camera3d.detectors.query_based.criterion import SetCriterion
from camera3d.detectors.query_based.decode import MAX_DETECTIONS, decode_queries
from camera3d.detectors.query_based.samples import ground_truth, with_detections
from camera3d.errors import ShapeMismatch
from camera3d.layers.camera_maps import camera_maps
from camera3d.layers.grid_mask import GridMask


@MODELS.register_module()
class DETR3D(Base3DDetector):
    """Camera-only detector whose queries read the image maps where their 3D points project to.

    Args:
        img_backbone, img_neck: configs for mmdet3d's registry; the neck's maps go to the head, finest first.
        pts_bbox_head: keywords of `build_detr3d_head`, without those given here.
        class_names: order of the logits.
        pv_strides: input pixels a cell of each map of the neck.
        num_cameras: the weights are learnt a camera slot, so the cameras' order is part of the weights.
        max_detections: how many of queries × classes `decode` looks at.
        grid_mask_prob: how likely GridMask hides a lattice of squares in the images of a training step.
        checkpoint_boxes: what the box branches of a checkpoint to be loaded answer in: `official`, `mmdet3d`
            (1.x), or `auto`, see `box_form`.

    Raises:
        ConfigInvalid: `checkpoint_boxes` is none of these.
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
        checkpoint_boxes: str = "auto",
        criterion: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.class_names = tuple(class_names)
        self.num_cameras = num_cameras
        self.pv_strides = tuple(pv_strides)
        self.max_detections = max_detections
        self.checkpoint_boxes = check_choice(checkpoint_boxes)
        self.grid_mask = GridMask(prob=grid_mask_prob)
        self.img_backbone = MODELS.build(img_backbone)
        self.img_neck = MODELS.build(img_neck)
        self.pts_bbox_head = build_detr3d_head(
            point_cloud_range=tuple(point_cloud_range),
            num_classes=len(self.class_names),
            num_cameras=num_cameras,
            num_levels=len(self.pv_strides),
            **pts_bbox_head,
        )
        self.criterion = SetCriterion(num_classes=len(self.class_names), **(criterion or {}))

    def own_form(self, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
        """Weights whose box branches answer in the official encoding, see `box_form`."""
        if box_form(checkpoint, self.checkpoint_boxes) == "official":
            return checkpoint.weights
        return exchange_box_rows(checkpoint.weights, self.pts_bbox_head.reg_branches)

    def extract_feat(self, images: Tensor) -> list[Tensor]:
        """FPN maps, one (B, N, C, h, w) a level, of images (B, N, 3, H, W)."""
        return camera_maps(images, grid_mask=self.grid_mask, backbone=self.img_backbone, neck=self.img_neck)

    def encode(self, images: Tensor, lidar2img: Tensor) -> DETR3DOutputs:
        """One frame a sample: images (B, N, 3, H, W) normalised and padded, lidar2img (B, N, 4, 4).

        Raises:
            ShapeMismatch: the images are not those of `num_cameras` cameras, or the matrices not theirs.
        """
        self._check(images, lidar2img)
        image_hw = tuple(images.shape[-2:])
        return self.pts_bbox_head(self.extract_feat(images), lidar2img=lidar2img, image_hw=image_hw)

    def _check(self, images: Tensor, lidar2img: Tensor) -> None:
        faults = []
        if images.dim() != 5 or images.shape[1:3] != (self.num_cameras, 3):
            faults.append(f"images: expected (B, {self.num_cameras}, 3, H, W), got {tuple(images.shape)}")
        expected = (len(images), self.num_cameras, 4, 4)
        if lidar2img.shape != expected:
            faults.append(f"lidar2img: expected {expected}, got {tuple(lidar2img.shape)}")
        if faults:
            raise ShapeMismatch("DETR3D looks through one row of cameras a sample: " + "; ".join(faults))

    def decode(self, outputs: DETR3DOutputs) -> list[Detections]:
        """Boxes of the last layer, see `decode_queries`."""
        return [
            decode_queries(logits, boxes, max_detections=self.max_detections)
            for logits, boxes in zip(outputs.query_logits[-1], outputs.query_boxes[-1], strict=True)
        ]

    def loss(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: list[Det3DDataSample], **kwargs
    ) -> dict[str, Tensor]:
        """Losses of every decoder layer for a batch of frames, see `encode` and `SetCriterion`."""
        outputs = self.encode(**batch_inputs_dict)
        return self.criterion(outputs, ground_truth(batch_data_samples), self.pts_bbox_head.code_weights)

    def predict(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: list[Det3DDataSample], **kwargs
    ) -> list[Det3DDataSample]:
        """The data samples with their detections, see `with_detections`."""
        return with_detections(batch_data_samples, self.decode(self.encode(**batch_inputs_dict)))

    def _forward(
        self, batch_inputs_dict: dict[str, Tensor], batch_data_samples: object = None, **kwargs
    ) -> DETR3DOutputs:
        """mmengine's `tensor` mode: the raw outputs."""
        return self.encode(**batch_inputs_dict)
