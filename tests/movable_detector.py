"""A detector whose outputs move with what it is shown, to the last digits: mirrors and quarter turns.

Image maps are means of square cells, BEV cells read them where they project to, and the queries stand behind
the cameras. It reads the LiDAR frame, or with `frame="ego"` an ego frame that may have been moved.

Shapes: B batch, N cameras, one query each, L decoder layers, K classes, P points, C channels, S cells a side.
"""

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import nn

from camera3d.boxes import decode_official
from camera3d.detectors.base import CameraDetector
from camera3d.detectors.protocol import BEV_MAP, IMAGE_MAP, QUERY, Detections, OutputSpec

CAMERAS, STRIDE, CHANNELS, CELLS, LAYERS, POINTS = 6, 8, 4, 16, 2, 3
HEIGHT_M = -0.5
AWAY = 6.0  # how many times farther than its camera a query stands


@MODELS.register_module()
class MovableDetector(CameraDetector):
    def __init__(self, *, class_names, point_cloud_range, frame="lidar", data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.class_names, self.frame = tuple(class_names), frame
        self.extent_m = tuple(float(edge) for edge in point_cloud_range)
        ego = frame == "ego"
        self.inputs = ("images", "lidar2img", *(("lidar2ego",) if ego else ()))
        self.training_inputs = ("bev_transform",) if ego else ()
        self.image_mix, self.bev_mix = nn.Linear(3, CHANNELS), nn.Linear(CHANNELS, CHANNELS)
        self.say = nn.Linear(CHANNELS, LAYERS * len(self.class_names))
        self.values = nn.ModuleList(nn.Linear(CHANNELS, CHANNELS) for _ in range(LAYERS))
        self.log_size = nn.Parameter(torch.randn(3) * 0.1 + 1)

    def output_specs(self, image_hw):
        h, w = (side // STRIDE for side in image_hw)
        exact = {"dtype": "float32"}

        def query(name, *rest):
            dimensions = ("layer", "query", *(dimension for dimension, _ in rest))
            shape = (LAYERS, CAMERAS, *(size for _, size in rest))
            return OutputSpec(name=name, role=QUERY, shape=shape, dimension_names=dimensions, **exact)

        heads = (("head", 1), ("bev_level", 1), ("point", POINTS))
        return (
            OutputSpec(
                name="pv",
                role=IMAGE_MAP,
                shape=(CAMERAS, CHANNELS, h, w),
                dimension_names=("camera", "channel", "pv_y", "pv_x"),
                stride=STRIDE,
                **exact,
            ),
            OutputSpec(
                name="ground",
                role=BEV_MAP,
                shape=(CHANNELS, CELLS, CELLS),
                dimension_names=("channel", "bev_y", "bev_x"),
                extent_m=self.extent_m,
                frame=self.frame,
                **exact,
            ),
            query("query_logits", ("class", len(self.class_names))),
            query("query_boxes", ("box_code", 10)),
            query("sampling_locations", *heads, ("xy", 2)),
            query("attention_weights", *heads),
            query("focal_feats", ("channel", CHANNELS)),
        )

    def encode(self, frame, state=None):
        images, lidar2img = frame["images"], frame["lidar2img"].double()
        to_bev = frame["lidar2ego"].double() if self.frame == "ego" else torch.eye(4).double()[None]
        cells = F.avg_pool2d(images.flatten(0, 1), STRIDE).movedim(1, -1)
        pv = self.image_mix(cells).tanh().movedim(-1, 1).unflatten(0, images.shape[:2])
        ground = self._ground(pv, lidar2img @ torch.linalg.inv(to_bev)[:, None], images.shape[-2:])
        return {"pv": pv, "ground": ground, **self._queries(pv, ground, lidar2img, to_bev)}, None

    def _ground(self, pv, bev2img, image_hw):
        low, high = torch.tensor(self.extent_m).double().view(2, 3)[:, :2]
        steps = (torch.arange(CELLS).double() + 0.5) / CELLS
        x, y = (low[i] + steps * (high[i] - low[i]) for i in (0, 1))
        y, x = torch.meshgrid(y, x, indexing="ij")
        points = torch.stack((x, y, torch.full_like(x, HEIGHT_M), torch.ones_like(x)), dim=-1)
        u, v, depth, _ = torch.einsum("bnij,yxj->bnyxi", bev2img, points).unbind(-1)
        ahead = depth > 0.5
        depth = depth.where(ahead, 1)
        size = torch.tensor(image_hw[::-1])
        grid = 2 * torch.stack((u / depth, v / depth), dim=-1) / size - 1
        read = F.grid_sample(pv.flatten(0, 1).double(), grid.flatten(0, 1), align_corners=False)
        seen = (read.unflatten(0, pv.shape[:2]) * ahead[:, :, None]).sum(1).float()
        return self.bev_mix(seen.movedim(1, -1)).tanh().movedim(-1, 1)

    def _queries(self, pv, ground, lidar2img, to_bev):
        B, K = len(pv), len(self.class_names)
        logits = 3 * self.say(pv.mean((-2, -1))).view(B, CAMERAS, LAYERS, K).transpose(1, 2)
        camera = -torch.linalg.solve(lidar2img[..., :3, :3], lidar2img[..., :3, 3:])[..., 0]
        ahead = -camera[..., :2] / camera[..., :2].norm(dim=-1, keepdim=True)
        place = AWAY * camera
        sizes = self.log_size.double().expand(B, CAMERAS, 3)
        w, length, h = sizes[..., :1], sizes[..., 1:2], sizes[..., 2:]
        parts = (place[..., :2], w, length, place[..., 2:], h, ahead, camera[..., :2])
        boxes = torch.cat(parts, dim=-1).float()[:, None].expand(B, LAYERS, CAMERAS, 10)

        farther = 1 + 0.2 * torch.arange(POINTS).double()
        points = place[:, :, None] * farther[:, None]
        metres = torch.einsum("bij,bnpj->bnpi", to_bev[:, :2, :3].expand(B, 2, 3), points)
        metres = metres + to_bev[:, None, None, :2, 3]
        low, high = torch.tensor(self.extent_m).double().view(2, 3)[:, :2]
        locations = ((metres - low) / (high - low)).float()
        weights = torch.tensor([0.5, 0.3, 0.2])
        read = F.grid_sample(ground, 2 * locations - 1, align_corners=False)
        read = (read * weights).sum(-1).transpose(1, 2)
        layers = [value(read) for value in self.values]
        shape = (B, LAYERS, CAMERAS, 1, 1, POINTS)
        return {
            "query_logits": logits,
            "query_boxes": boxes,
            "sampling_locations": locations[:, None, :, None, None].expand(*shape, 2),
            "attention_weights": weights.expand(shape),
            "focal_feats": torch.stack(layers, dim=1),
        }

    def decode(self, outputs):
        scores, labels = outputs["query_logits"][:, -1].sigmoid().max(-1)
        boxes = decode_official(outputs["query_boxes"][:, -1])
        order = scores.argsort(-1, descending=True)
        return [
            Detections(boxes=boxes[b, rows], scores=scores[b, rows], labels=labels[b, rows])
            for b, rows in enumerate(order)
        ]

    def detection_loss(self, outputs, ground_truth):
        return {"loss_cls": outputs["query_logits"].square().mean()}

    def head_weights(self):
        return {key: value for key, value in self.state_dict().items() if key.startswith("values.")}

    def sampling_projections(self, weights):
        layers = [nn.Linear(CHANNELS, CHANNELS) for _ in range(LAYERS)]
        for number, layer in enumerate(layers):
            layer.weight.data, layer.bias.data = (
                weights[f"values.{number}.{part}"].clone() for part in ("weight", "bias")
            )
        return [layer.requires_grad_(False) for layer in layers]
