"""The detection head: learned queries, the decoder, and one class and one box branch a decoder layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from camera3d.detectors.detr3d.attention import ImageTable
from camera3d.detectors.detr3d.decoder import Transformer
from camera3d.detectors.query_based.branches import prediction_branches
from camera3d.detectors.query_based.detector import named_maps
from camera3d.detectors.query_based.refinement import centres_to_metres


class DETR3DHead(nn.Module):
    """Query predictions from the image maps.

    Args:
        code_weights: factor on each of the 10 box numbers in the loss; kept with the weights, as released.
        point_cloud_range: x, y, z minimum, then maximum, in metres.
    """

    def __init__(
        self,
        *,
        transformer: Transformer,
        num_queries: int,
        num_classes: int,
        embed_dims: int,
        code_weights: tuple[float, ...],
        point_cloud_range: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.point_cloud_range = point_cloud_range
        self.code_weights = nn.Parameter(torch.tensor(code_weights), requires_grad=False)
        self.transformer = transformer
        self.cls_branches, self.reg_branches = prediction_branches(
            len(transformer.decoder.layers),
            embed_dims=embed_dims,
            num_classes=num_classes,
            code_size=len(code_weights),
        )
        self.query_embedding = nn.Embedding(num_queries, 2 * embed_dims)

    def forward(
        self, pv_feats: list[Tensor], *, lidar2img: Tensor, image_hw: tuple[int, int]
    ) -> dict[str, Tensor]:
        """The outputs of `DETR3D.output_specs` for a batch.

        Args:
            pv_feats: one (B, N, C, h, w) a level, finest first.
            lidar2img: (B, N, 4, 4).
            image_hw: size of the images that the maps cover, padding included.
        """
        images = ImageTable.of_maps(pv_feats, image_hw, lidar2img)
        trace = self.transformer(self.query_embedding.weight, images, self.reg_branches)
        logits = torch.stack(
            [
                branch(feats)
                for branch, feats in zip(self.cls_branches, trace.query_feats.unbind(1), strict=True)
            ],
            dim=1,
        )
        return {
            **named_maps(pv_feats),
            "query_logits": logits.float(),
            "query_boxes": centres_to_metres(trace.boxes_normalised, self.point_cloud_range),
            "query_feats": trace.query_feats,
            "reference_points": trace.reference_points,
            "image_points": trace.reads.points,
            "image_visible": trace.reads.visible,
            "image_weights": trace.reads.weights,
            "focal_feats": trace.reads.focal_feats,
        }
