"""A detector without a BEV map and without queries: one convolution, and slots for boxes."""

import torch
from mmdet3d.registry import MODELS
from torch import nn

from camera3d.detectors.base import CameraDetector
from camera3d.detectors.protocol import DENSE_HEAD, IMAGE_MAP, Detections, OutputSpec

CAMERAS, STRIDE = 6, 8


@MODELS.register_module()
class SlotDetector(CameraDetector):
    """Sees the mean of all images, and says what is in each of its slots: box numbers, then logits."""

    inputs = ("images",)

    def __init__(self, *, class_names, point_cloud_range, channels=8, slots=6, data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.class_names, self.channels, self.slots = tuple(class_names), channels, slots
        self.numbers = 9 + len(self.class_names)
        self.conv = nn.Conv2d(3, channels, STRIDE, stride=STRIDE)
        self.head = nn.Linear(CAMERAS * channels, slots * self.numbers)

    def output_specs(self, image_hw):
        height, width = (side // STRIDE for side in image_hw)
        shape, names = (CAMERAS, self.channels, height, width), ("camera", "channel", "image_y", "image_x")
        slots = {"shape": (self.slots, self.numbers), "dimension_names": ("slot", "slot_number")}
        return (
            OutputSpec(name="image_feats", role=IMAGE_MAP, shape=shape, dimension_names=names, stride=STRIDE),
            OutputSpec(name="slots", role=DENSE_HEAD, dtype="float32", **slots),
        )

    def encode(self, frame, state=None):
        feats = self.conv(frame["images"].flatten(0, 1)).relu().unflatten(0, (-1, CAMERAS))
        slots = self.head(feats.mean((-2, -1)).flatten(1)).unflatten(1, (self.slots, self.numbers))
        return {"image_feats": feats, "slots": slots}, None

    def boxes(self, slots):
        return torch.cat((slots[..., :3] * 10, slots[..., 3:6].exp(), slots[..., 6:9]), dim=-1)

    def decode(self, outputs):
        scores, labels = outputs["slots"][..., 9:].sigmoid().max(-1)
        order, boxes = scores.argsort(-1, descending=True), self.boxes(outputs["slots"])
        return [
            Detections(boxes=boxes[b, rows], scores=scores[b, rows], labels=labels[b, rows])
            for b, rows in enumerate(order)
        ]

    def detection_loss(self, outputs, ground_truth):
        box, logits = outputs["slots"].sum() * 0, outputs["slots"][..., 9:]
        wanted = torch.zeros_like(logits)
        for b, truth in enumerate(ground_truth):
            n = min(self.slots, len(truth.boxes))
            box = box + (self.boxes(outputs["slots"][b, :n]) - truth.boxes[:n]).abs().sum()
            wanted[b, range(n), truth.labels[:n]] = 1
        cls = nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {"loss_bbox": box / len(logits), "loss_cls": cls / len(logits)}
